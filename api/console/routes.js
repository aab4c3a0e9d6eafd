/* The cloud's route tables as last seen: which entries are ours, which are somebody else's, and where the two collide.
 * Nothing of somebody else's is touched; to adopt an entry is a person's decision, made in a dialog. */

import { cidrPath, request } from "./api.js";
import { ask, reasons } from "./dialog.js";
import { announce, byId, h, prose, text, when } from "./dom.js";
import { refresh } from "./feed.js";
import { clock } from "./format.js";
import { icon } from "./icons.js";
import { Refused } from "./api.js";
import { mayWrite, read, subscribe } from "./store.js";

const OWNER = {
  ours: ["ok", "ours"],
  conflict: ["error", "conflict"],
  changed: ["error", "changed"],
  stray: ["warn", "stray"],
  foreign: ["absent", "foreign"],
  system: ["absent", "system"],
};
const ORDER = ["conflict", "changed", "stray", "ours", "foreign", "system"];

let systemToo = false; // whether the cloud's own entries are shown: nobody may change them, and they are many

export function mount() {
  const toggle = byId("routes-system");
  toggle.addEventListener("click", () => {
    systemToo = !systemToo;
    toggle.setAttribute("aria-pressed", String(systemToo));
    draw(read());
  });
  subscribe(draw);
}

function draw({ routes, status, session }) {
  if (!routes) return;
  const empty = byId("routes-empty");
  const tables = routes.tables ?? [];
  empty.hidden = tables.length > 0;
  when(empty, [routes.refused], () => (routes.refused ? reasons(new Refused(0, { reasons: routes.refused })) : h("p", {}, "The cloud has not answered yet.")));
  text(byId("routes-seen"), routes.observed_at ? `seen at ${clock(routes.observed_at)}` : "");
  const wanted = (status?.cidrs ?? []).filter((cidr) => cidr.phase === "present").map((cidr) => cidr.cidr);
  when(byId("routes-tables"), [tables, routes.quota, wanted, session?.scope, systemToo],
    () => tables.map((each) => table(each, wanted, routes.quota)));
}

function table(each, wanted, quota) {
  const title = `routes-${each.id}`;
  const entries = each.entries
    .filter((entry) => systemToo || entry.owner !== "system")
    .sort((one, other) => ORDER.indexOf(one.owner) - ORDER.indexOf(other.owner));
  const none = h("tr", {}, h("td", { colspan: 4, class: "meta" }, "No entries but the system’s."));
  const about = [each.name, each.kind, (each.vswitches ?? []).join(", "), filled(quota?.[each.id] ?? each.quota)].filter(Boolean);
  return h("section", { class: "routetable", "aria-labelledby": title },
    h("div", { class: "subtitle" }, h("h3", { class: "mono", id: title }, each.id), h("p", { class: "meta" }, about.join(" · "))),
    h("table", { "aria-labelledby": title },
      h("thead", {}, h("tr", {}, ["CIDR", "Next hop", "Owner", "Status"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, entries.length ? entries.map((entry) => line(entry, wanted)) : none)));
}

function filled(quota) {
  if (!quota || quota.limit === undefined) return "";
  return `${(quota.ours ?? 0) + (quota.others ?? 0)} of ${quota.limit} entries used`;
}

function line(entry, wanted) {
  const [mark, word] = OWNER[entry.owner] ?? ["absent", entry.owner];
  const takes = ["conflict", "changed"].includes(entry.owner) && wanted.includes(entry.cidr);
  const button = takes
    ? h("button", { type: "button", class: "quiet", disabled: !mayWrite(), "aria-label": `Adopt ${entry.cidr}`, on: { click: () => adopting(entry) } }, "Adopt")
    : null;
  return h("tr", { "data-owner": entry.owner, "data-cidr": entry.cidr },
    h("th", { scope: "row", class: "mono" }, entry.cidr),
    h("td", { class: "mono", "data-name": "Next hop" }, entry.next_hop || entry.next_hop_type || "the VPC itself"),
    h("td", { "data-name": "Owner" }, h("span", { class: "state" }, icon(mark), word)),
    h("td", { "data-name": "Status" }, h("span", {}, [entry.status].filter(Boolean).join(" ").toLowerCase()), button,
      entry.note ? h("p", { class: "hint" }, ...prose(entry.note)) : null));
}

function adopting(entry) {
  ask({
    title: `Adopt the entry for ${entry.cidr}?`,
    body: [
      h("p", {}, "The route entry to ", h("code", {}, entry.next_hop || "somewhere else"), " was made by somebody else. Adopted, it is pointed at this machine, in place, and is ours from then on. Whoever made it may expect it to stay."),
    ],
    verb: "Adopt",
    danger: true,
    act: async () => {
      await request("POST", `${cidrPath(entry.cidr)}/adopt`);
      announce(`The entry for ${entry.cidr} is ours.`);
      refresh();
    },
  });
}
