/* The steps of a plan, as a dry run returns them: where, and what would be done there. */

import { h, prose } from "./dom.js";
import { icon } from "./icons.js";

const MARK = { wait: "pending", blocked: "error", stray: "warn" };

export function planList(steps) {
  return h("ul", { class: "plan" }, steps.map((step) =>
    h("li", { "data-action": step.action },
      icon(MARK[step.action] ?? step.action),
      h("span", {}, step.table ? [h("code", {}, step.table), " "] : null, ...prose(step.text)))));
}
