/* The CIDRs, each with its chain of layers: intent, kernel, cloud, path. The first that is not green says why and what
 * to do. Options are changed and a CIDR is removed in a dialog, by the version that was shown (If-Match). */

import { Refused, SignedOut, Unreachable, cidrPath, request } from "./api.js";
import { ask, sentence } from "./dialog.js";
import { announce, byId, h, keyed, prose, text, when } from "./dom.js";
import { refresh } from "./feed.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { layers } from "./layers.js";
import { optionFields } from "./options.js";
import { planList } from "./plan.js";
import { mayWrite, read, subscribe } from "./store.js";

export function mount() {
  subscribe(({ status }) => {
    if (!status?.cidrs) return;
    const wanted = status.cidrs.filter((cidr) => cidr.phase === "present"); // as the verdict counts them
    const ready = wanted.filter((cidr) => cidr.layers.kernel.state === "ok" && cidr.layers.cloud.state === "ok");
    text(byId("cidrs-count"), status.cidrs.length ? `${ready.length} of ${wanted.length} ready` : "");
    keyed(byId("cidrs-list"), status.cidrs, (cidr) => cidr.cidr, row);
    const empty = byId("cidrs-empty");
    empty.hidden = status.cidrs.length > 0;
    when(empty, status.links.length > 0, () => h("p", {}, status.links.length
      ? "No CIDR yet. Write one above, such as the pod network of the cluster; what would happen is shown before it does."
      : ["No CIDR yet, and no link that could carry one: ", h("a", { href: "#links" }, "join a link"), " first."]));
  });
}

function row(first) {
  let cidr = first;
  const comment = h("p", { class: "meta" });
  const chain = h("ol", { class: "chain", "aria-label": `Layers of ${first.cidr}` });
  const why = h("div", { class: "why" });
  const settings = h("p", { class: "hint settled" });
  const change = h("button", { type: "button", class: "quiet", "aria-label": `Change ${first.cidr}`, on: { click: () => changing(cidr) } }, "Change");
  const remove = h("button", { type: "button", class: "quiet", "aria-label": `Remove ${first.cidr}`, on: { click: () => removing(cidr) } }, "Remove");
  const root = h("li", { class: "row", "data-cidr": first.cidr },
    h("div", { class: "head" },
      h("div", { class: "what" }, h("h3", { class: "mono" }, first.cidr), comment),
      h("div", { class: "acts" }, change, remove)),
    chain, why, settings);

  function update(now) {
    cidr = now;
    const found = layers(now, read().status.findings);
    text(comment, [`via ${now.via}`, now.comment].filter(Boolean).join(" · "));
    when(chain, found.map(({ layer, state, word }) => [layer, state, word]), () => found.map((layer) =>
      h("li", { class: `hop ${layer.state}`, "data-layer": layer.layer, "data-state": layer.state },
        icon(layer.state),
        h("span", { class: "name" }, layer.name), h("span", { class: "word" }, layer.word))));
    when(why, [found, now.warnings], () => [...troubles(found), ...warnings(now.warnings)]);
    text(settings, listed(now));
    change.disabled = !mayWrite() || now.phase !== "present";
    remove.disabled = !mayWrite() || now.phase !== "present";
  }
  return { root, update };
}

/** Every error, and the first thing that is waited for: the others wait for that one. */
function troubles(found) {
  const waits = found.find((layer) => layer.state === "pending");
  return found.filter((layer) => (layer.state === "error" || layer === waits) && layer.detail).map((layer) =>
    h("div", { class: `reason ${layer.state}`, "data-code": layer.code },
      h("p", {}, h("strong", {}, `${layer.name}: `), ...prose(layer.detail)),
      layer.next_step ? h("p", { class: "step" }, ...prose(sentence(layer.next_step))) : null));
}

function warnings(given) {
  return (given ?? []).map((warning) => h("div", { class: "reason warn", "data-code": warning.code },
    h("p", {}, h("strong", {}, "Note: "), ...prose(warning.text)),
    warning.next_step ? h("p", { class: "step" }, ...prose(sentence(warning.next_step))) : null));
}

function listed(cidr) {
  const down = cidr.when_down === "keep" ? "kept while the link is down" : `withdrawn after ${cidr.hold_down} s without link`;
  return [`SNAT ${cidr.snat ? "on" : "off"}`, `MSS ${cidr.mss}`, cidr.probe ? `probe ${cidr.probe}` : "no probe", down].join(" · ");
}

function removing(cidr) {
  const plan = h("div", { class: "preview", "aria-live": "polite" });
  void foretell(cidr, plan);
  ask({
    title: `Remove ${cidr.cidr}?`,
    body: [
      h("p", {}, "Hosts of the VPC lose the way to it. The cloud’s route entry goes first, then the kernel’s route, so that no packet is sent here in vain."),
      plan,
    ],
    verb: "Remove",
    danger: true,
    act: async () => {
      await request("DELETE", cidrPath(cidr.cidr), { headers: version(cidr) });
      announce(`${cidr.cidr} is being removed.`);
      refresh();
    },
  });
}

/** Show what a removal would do. It is a courtesy: where it cannot be had, the question stands without it. */
async function foretell(cidr, place) {
  try {
    const found = await request("DELETE", `${cidrPath(cidr.cidr)}?dry_run=true`, { headers: version(cidr) });
    if (found.plan?.length) place.replaceChildren(planList(found.plan));
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable || error instanceof SignedOut)) throw error;
  }
}

function changing(cidr) {
  const options = optionFields(cidr);
  ask({
    title: `Change ${cidr.cidr}`,
    body: [h("p", {}, `Via ${cidr.via}. What is changed takes effect without a gap.`), options.root],
    verb: "Change",
    act: async () => {
      const body = options.asked();
      if (Object.keys(body).length) await request("PATCH", cidrPath(cidr.cidr), { body, headers: version(cidr) });
      announce(`${cidr.cidr}: ${count(Object.keys(body).length, "change")} asked for.`);
      refresh();
    },
  });
}

/** What was shown is what is meant: a change by somebody else in between is refused with 412. */
function version(cidr) {
  if (!cidr.etag) return {};
  const tag = String(cidr.etag);
  return { "if-match": tag.startsWith('"') ? tag : `"${tag}"` };
}
