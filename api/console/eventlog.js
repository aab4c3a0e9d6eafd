/* What happened, newest first: who did what to which CIDR, and what was repaired. Only what comes while the page is open
 * is read out: the past is there for who goes to look. */

import { byId, h, keyed, prose, text, when } from "./dom.js";
import { clock, moment } from "./format.js";
import { subscribe } from "./store.js";

export function mount() {
  subscribe(({ events, live, reachable }) => {
    keyed(byId("events-list"), [...events].reverse(), (event) => String(event.id), line);
    text(byId("events-live"), live && reachable ? "live" : "not live");
    if (live) requestAnimationFrame(() => byId("events-log").setAttribute("aria-live", "polite"));
    byId("events-log").hidden = events.length === 0;
    const empty = byId("events-empty");
    empty.hidden = events.length > 0;
    when(empty, true, () => h("p", {}, "Nothing has happened yet. What anybody changes, and what is repaired, appears here."));
  });
}

function line(event) {
  const root = h("li", { "data-what": event.what },
    h("time", { datetime: new Date(event.at * 1000).toISOString(), title: moment(event.at) }, clock(event.at)),
    h("div", {},
      h("p", {}, h("strong", {}, event.what), event.cidr ? [" ", h("span", { class: "mono" }, event.cidr)] : null,
        h("span", { class: "who" }, ` by ${event.who}`)),
      event.detail ? h("p", { class: "hint" }, ...prose(event.detail)) : null));
  return { root, update: () => {} };
}
