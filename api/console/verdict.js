/* The first line: how it is, in the words of `nexthop status`, and what to do next. Further findings are one click away. */

import { byId, h, prose, text, when } from "./dom.js";
import { icon } from "./icons.js";
import { sentence } from "./dialog.js";
import { subscribe } from "./store.js";

const MARK = { ok: "ok", degraded: "warn", broken: "error" };
const WORD = { ok: "OK", degraded: "Degraded", broken: "Broken" };

export function mount() {
  const section = byId("verdict");
  subscribe(({ status, reachable }) => {
    if (!status) return;
    if (status.refused) show(section, { level: "broken", ...status.refused[0] }, [], reachable);
    else show(section, status.verdict, status.findings, reachable);
  });
}

/** What was heard before the daemon fell silent is told as that, and in no colour. */
function show(section, verdict, findings, fresh) {
  section.removeAttribute("aria-busy");
  section.dataset.level = fresh ? verdict.level : "old";
  document.title = `${verdict.level === "ok" ? "" : `${verdict.level}: `}Nexthop`;
  const mark = fresh ? (MARK[verdict.level] ?? "error") : "absent";
  when(byId("verdict-mark"), mark, () => icon(mark, 32));
  const word = `${fresh ? "" : "Last heard: "}${WORD[verdict.level] ?? verdict.level}`;
  when(byId("verdict-title"), [word, verdict.text], () => [h("span", { class: "level" }, `${word}: `), ...prose(verdict.text)]);
  when(byId("verdict-step"), verdict.next_step, () => (verdict.next_step ? prose(sentence(verdict.next_step)) : null));
  const more = findings.length > 1 ? findings : [];
  byId("findings").hidden = more.length === 0;
  text(byId("findings-count"), `All ${more.length} findings`);
  when(byId("findings-list"), more, () => more.map((finding) =>
    h("li", {},
      icon(MARK[finding.level] ?? "warn"),
      h("div", {},
        h("p", {}, ...prose(sentence(finding.text))),
        finding.next_step ? h("p", { class: "step" }, ...prose(sentence(finding.next_step))) : null)),
  ));
}
