/* The four layers of a CIDR, in the order in which it becomes true, and the words for their states. Pure.
 *
 * A layer's next step comes with it or, where it does not, from the finding that is about the same thing. */

const WORDS = {
  intent: { ok: "wanted", pending: "leaving" },
  kernel: { ok: "carried", pending: "waiting", error: "failed", absent: "not there" },
  cloud: { ok: "routed here", pending: "waiting", error: "failed", absent: "not there" },
  path: { ok: "answers", pending: "asking", error: "no answer", absent: "not probed" },
};

export const NAMES = { intent: "Intent", kernel: "Kernel", cloud: "Cloud", path: "Path" };

/** Return [{layer, name, state, word, detail, code, next_step}] for one CIDR of /v1/status. */
export function layers(cidr, findings) {
  const leaving = cidr.phase !== "present";
  const found = {
    intent: { state: leaving ? "pending" : "ok", detail: leaving ? "It is being removed" : "", code: "" },
    kernel: cidr.layers.kernel,
    cloud: cidr.layers.cloud,
    path: cidr.path,
  };
  return Object.entries(found).map(([layer, said]) => ({
    layer,
    name: NAMES[layer],
    state: said.state,
    word: layer === "path" ? pathWord(cidr) : (WORDS[layer][said.state] ?? said.state),
    detail: said.detail ?? "",
    code: said.code ?? "",
    next_step: said.next_step || (said.state === "error" ? advice(cidr.cidr, said.code, findings) : ""),
  }));
}

/** What the probe says of a CIDR; without an answer it says nothing, which is not the same as not being asked. */
export function pathWord(cidr) {
  if (cidr.path.state === "absent" && cidr.probe) return "not known now";
  return WORDS.path[cidr.path.state] ?? cidr.path.state;
}

/** What to do about `code` at `cidr`, from the findings of the status; "" where nothing is said. */
function advice(cidr, code, findings) {
  const same = findings.filter((finding) => finding.code === code);
  return (same.find((finding) => finding.about === cidr) ?? same[0])?.next_step ?? "";
}

const WORST = ["error", "pending", "ok", "absent"];

/** The worst of several states, "absent" of none. */
export function worst(states) {
  return WORST.find((state) => states.includes(state)) ?? "absent";
}
