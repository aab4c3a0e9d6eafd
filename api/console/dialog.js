/* One question at a time, in the browser's own modal dialog: it keeps the focus in, gives it back, and takes Escape.
 *
 * What cannot be undone has "Cancel" in focus first. The answer of the daemon, if it refuses, is shown inside. */

import { Refused } from "./api.js";
import { byId, h, prose } from "./dom.js";

/** Ask `title`; `body` is nodes; `act(dialog)` does it and may throw `Refused`. */
export function ask({ title, body, verb, danger = false, act }) {
  const dialog = byId("dialog");
  const problem = h("div", { class: "problem", role: "alert" });
  const cancel = h("button", { type: "button", autofocus: danger, on: { click: () => dialog.close() } }, "Cancel");
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const form = h(
    "form",
    { method: "dialog", novalidate: false, on: { submit } },
    h("h2", { id: "dialog-title" }, title),
    h("div", { class: "body" }, body),
    problem,
    h("div", { class: "buttons" }, cancel, go),
  );

  async function submit(event) {
    event.preventDefault();
    go.disabled = true;
    problem.replaceChildren();
    try {
      await act();
      dialog.close();
    } catch (error) {
      problem.replaceChildren(...reasons(error));
    } finally {
      go.disabled = false;
    }
  }

  dialog.replaceChildren(form);
  dialog.showModal();
}

/** Return why something was refused, as nodes. */
export function reasons(error) {
  if (!(error instanceof Refused)) return [h("p", {}, `${sentence(error.message)}. Nothing is known to have changed.`)];
  return error.reasons.map((reason) =>
    h("div", { class: "reason", "data-code": reason.code },
      h("p", {}, ...prose(sentence(reason.text))),
      reason.next_step ? h("p", { class: "step" }, ...prose(sentence(reason.next_step))) : null),
  );
}

/** "a thing" -> "A thing"; an address or a command keeps its spelling. */
export function sentence(value) {
  return /^[a-z][a-z ,]/.test(value) ? value[0].toUpperCase() + value.slice(1) : value;
}
