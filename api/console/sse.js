/* Server-sent events over fetch, since EventSource cannot send a token (WHATWG HTML, 9.2.6 for the format).
 *
 * Yields {id, event, data} for every event. A comment line keeps the line alive; a line that is silent for longer than
 * `silence` is taken for dead and ends the stream, so that its owner opens another. */

export async function* events(response, { silence = 40_000 } = {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = fresh();
  try {
    for (;;) {
      const { done, value } = await soon(reader.read(), silence);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (fields.data.length) yield { ...fields, data: fields.data.join("\n") };
          fields = fresh();
        } else {
          take(fields, line);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function fresh() {
  return { id: null, event: "message", data: [] };
}

function take(fields, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return; // a comment
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") fields.data.push(value);
  else if (name === "id" || name === "event") fields[name] = value;
}

function soon(promise, limit) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the stream fell silent")), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
