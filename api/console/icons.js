/* One mark for each state, told apart by shape before colour: a tick, a ring of dashes, a cross, a bar; and one for each
 * kind of step in a plan, which is no state yet and has the page's own colour: a plus, an arrow, a minus. */

import { s } from "./dom.js";

const DRAWN = {
  ok: () => [s("circle", { cx: 8, cy: 8, r: 7, class: "fill" }), s("path", { d: "M4.8 8.3l2.2 2.2 4.3-4.6", class: "cut" })],
  pending: () => [s("circle", { cx: 8, cy: 8, r: 6.1, class: "dashes" }), s("circle", { cx: 8, cy: 8, r: 2, class: "fill" })],
  warn: () => [s("path", { d: "M8 1.4l7 12.7H1z", class: "fill round" }), s("path", { d: "M8 6v3.6M8 11.8v.1", class: "cut" })],
  error: () => [
    s("path", { d: "M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z", class: "fill" }),
    s("path", { d: "M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8", class: "cut" }),
  ],
  absent: () => [s("circle", { cx: 8, cy: 8, r: 6.2, class: "ring" }), s("path", { d: "M5.3 8h5.4", class: "stroke" })],
  create: () => [s("path", { d: "M8 3.2v9.6M3.2 8h9.6", class: "stroke" })],
  modify: () => [s("path", { d: "M2.8 8h10M9.2 4.4L12.8 8l-3.6 3.6", class: "stroke" })],
  delete: () => [s("path", { d: "M3.2 8h9.6", class: "stroke" })],
};

/** Return the mark of a state; it is decoration, the word stands beside it. */
export function icon(state, size = 16) {
  const drawn = DRAWN[state] ?? DRAWN.absent;
  const shape = { viewBox: "0 0 16 16", width: size, height: size, class: `icon ${state}`, "aria-hidden": "true" };
  return s("svg", shape, ...drawn());
}
