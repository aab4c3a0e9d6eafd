/* How a CIDR is carried, as form fields: the same for a new one and for one that is there. `asked()` returns only what
 * differs from what it began with, so that nothing is set which nobody touched. */

import { h } from "./dom.js";

export const DEFAULTS = { comment: "", snat: true, mss: "auto", probe: "", when_down: "keep", hold_down: 30 };

let number = 0;

export function optionFields(start = DEFAULTS) {
  number += 1;
  const id = (name) => `option-${number}-${name}`;
  const input = (name, attributes) => h("input", { id: id(name), name, "aria-describedby": id(`${name}-hint`), spellcheck: "false", ...attributes });
  const hint = (name, ...words) => h("p", { class: "hint", id: id(`${name}-hint`) }, ...words);
  const label = (name, words) => h("label", { for: id(name) }, words);

  const comment = input("comment", { maxlength: 200, value: start.comment });
  const snat = input("snat", { type: "checkbox", checked: start.snat });
  const mss = input("mss", { value: start.mss, class: "mono", maxlength: 8 });
  const probe = input("probe", { value: start.probe, class: "mono", maxlength: 64, placeholder: "tcp:10.244.1.20:80" });
  const down = h("select", { id: id("down"), name: "when_down", "aria-describedby": id("down-hint") },
    h("option", { value: "keep", selected: start.when_down === "keep" }, "Keep the route entry"),
    h("option", { value: "withdraw", selected: start.when_down === "withdraw" }, "Withdraw the route entry"));
  const hold = input("hold", { type: "number", min: 0, max: 86400, value: start.hold_down });
  const force = input("force", { type: "checkbox" });
  const withdrawing = h("div", { class: "fields" },
    h("div", { class: "field" }, label("hold", "After seconds without link"), hold, hint("hold", "A link that flaps shall not make the table flap.")),
    h("div", { class: "field check" }, force, h("div", {}, label("force", "Even if packets leave unprotected"),
      hint("force", "Withdrawn, they take whatever other way the VPC has."))));

  const root = h("div", { class: "fields" },
    h("div", { class: "field" }, label("comment", "Comment"), comment, hint("comment", "For who reads the list after you.")),
    h("div", { class: "field" }, label("probe", "Probe"), probe, hint("probe", "A TCP port or ", h("code", {}, "icmp:ADDRESS"), " beyond the link that shall answer.")),
    h("div", { class: "field" }, label("mss", "TCP MSS"), mss, hint("mss", h("code", {}, "auto"), " fits the link; ", h("code", {}, "off"), " or a number of bytes.")),
    h("div", { class: "field" }, label("down", "While the link is down"), down, hint("down", "Kept, hosts get “unreachable” at once.")),
    h("div", { class: "field check" }, snat, h("div", {}, label("snat", "Masquerade (SNAT)"),
      hint("snat", "Without it the far end needs a route back to the hosts."))),
    withdrawing,
  );

  const follow = () => { withdrawing.hidden = down.value !== "withdraw"; };
  down.addEventListener("change", follow);
  follow();

  function asked() {
    const now = {
      comment: comment.value.trim(),
      snat: snat.checked,
      mss: mss.value.trim() || "auto",
      probe: probe.value.trim(),
      when_down: down.value,
      hold_down: Number(hold.value),
    };
    const changed = Object.fromEntries(Object.entries(now).filter(([name, value]) => value !== start[name]));
    if (force.checked && down.value === "withdraw") changed.force = true;
    return changed;
  }

  function reset() {
    comment.value = start.comment;
    snat.checked = start.snat;
    mss.value = start.mss;
    probe.value = start.probe;
    down.value = start.when_down;
    hold.value = start.hold_down;
    force.checked = false;
    follow();
  }

  return { root, asked, reset };
}
