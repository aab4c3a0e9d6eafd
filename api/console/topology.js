/* Draws the path as SVG, in real pixels, so that its letters are as large as the page's: lying where there is room for
 * it, standing on a phone. A line's state shows by its stroke, by a mark upon it and in words; colour only repeats it. */

import { byId, h, s } from "./dom.js";
import { icon } from "./icons.js";
import { describe, sentences } from "./path.js";
import { read, subscribe } from "./store.js";

const LYING = 780; // pixels from which the drawing lies
const NODE = 74;
const PILL = 44;
const GAP = 8;
const MOST = 4; // CIDRs of one link that are drawn

export function mount() {
  const place = byId("topology");
  let drawn = "";
  function draw() {
    const { status, routes, traffic } = read();
    const width = Math.floor(place.clientWidth);
    if (!status?.cidrs || !width) return;
    const path = describe(status, routes, traffic);
    const mark = JSON.stringify([width, path]);
    if (mark === drawn) return;
    drawn = mark;
    const told = h("ul", { class: "unseen" }, sentences(path).map((line) => h("li", {}, line)));
    place.replaceChildren(width >= LYING ? lying(path, width) : standing(path, width), told);
  }
  new ResizeObserver(draw).observe(place);
  subscribe(draw);
}

function canvas(width, height, parts) {
  return s("svg", { class: "topology", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" }, parts);
}

function lying(path, width) {
  const room = Math.min(1, width / 1200);
  const wide = { hosts: 140 * room, table: 160 * room, appliance: 164 * room, far: 196 * room, pods: 178 * room };
  const left = width - Object.values(wide).reduce((sum, one) => sum + one, 0) - 4;
  const gap = { hosts: left * 0.12, table: left * 0.26, link: left * 0.46, far: left * 0.16 };
  const rows = path.links.length ? path.links : [null];
  const heights = rows.map((row) => Math.max(NODE, pills(row).length * (PILL + GAP) - GAP));
  const height = heights.reduce((sum, one) => sum + one, 0) + 24 * (rows.length - 1) + 20;
  const middle = height / 2;
  let x = 2;
  const at = {};
  for (const name of ["hosts", "table", "appliance", "far", "pods"]) {
    at[name] = x;
    x += wide[name] + ({ hosts: gap.hosts, table: gap.table, appliance: gap.link, far: gap.far }[name] ?? 0);
  }
  const top = middle - NODE / 2;
  const parts = [
    line([at.hosts + wide.hosts, middle], [at.table, middle], { state: "plain" }),
    line([at.table + wide.table, middle], [at.appliance, middle], path.attract),
    node(at.hosts, top, wide.hosts, path.hosts),
    node(at.table, top, wide.table, path.table),
  ];
  let y = 10;
  rows.forEach((row, index) => {
    const centre = y + heights[index] / 2;
    const from = [at.appliance + wide.appliance, middle];
    if (row === null) {
      parts.push(line(from, [at.far, centre], { state: "absent", label: "no link yet" }));
      parts.push(line([at.far + wide.far, centre], [at.pods, centre], { state: "absent" }));
      parts.push(node(at.far, centre - NODE / 2, wide.far, { title: "Far site", lines: ["join a link first"], ghost: true }));
      parts.push(node(at.pods, centre - NODE / 2, wide.pods, { title: "Pods", lines: ["then add a CIDR"], ghost: true }));
    } else {
      parts.push(line(from, [at.far, centre], { ...row, tunnel: true }));
      const shown = pills(row);
      const first = centre - (shown.length * (PILL + GAP) - GAP) / 2;
      shown.forEach((pill, number) => {
        const to = first + number * (PILL + GAP);
        parts.push(line([at.far + wide.far, centre], [at.pods, to + PILL / 2], { state: pill.state }));
        parts.push(drawnPill(at.pods, to, wide.pods, pill));
      });
      parts.push(node(at.far, centre - NODE / 2, wide.far, row.far));
    }
    y += heights[index] + 24;
  });
  parts.push(node(at.appliance, top, wide.appliance, { ...path.appliance, ours: true }));
  return canvas(width, height, parts);
}

/** One below the other; where there are several links, each hangs on a trunk from the appliance. */
function standing(path, width) {
  const parts = [];
  const trunk = 26;
  const several = path.links.length > 1;
  let left = 1;
  let y = 2;
  const stack = (thing) => {
    parts.push(node(left, y, width - left - 1, thing));
    y += NODE;
  };
  const down = (thing, length = 46) => {
    parts.push(line([left - 1 + trunk, y], [left - 1 + trunk, y + length], thing));
    y += length;
  };
  stack(path.hosts);
  down({ state: "plain" }, 22);
  stack(path.table);
  down(path.attract);
  stack({ ...path.appliance, ours: true });
  if (!path.links.length) {
    down({ state: "absent", label: "no link yet" });
    stack({ title: "Far site", lines: ["join a link first"], ghost: true });
  }
  const top = y;
  let last = y;
  if (several) left = 34;
  for (const row of path.links) {
    if (several) {
      y += 14;
      last = y + 14;
      parts.push(line([trunk - 10, last], [left + 17, last], { state: "plain" }));
    }
    down({ ...row, tunnel: true });
    stack(row.far);
    for (const pill of pills(row)) {
      down({ state: pill.state }, GAP + 4);
      parts.push(drawnPill(left, y, width - left - 1, pill));
      y += PILL;
    }
  }
  if (several) parts.unshift(line([trunk - 10, top], [trunk - 10, last], { state: "plain" }));
  return canvas(width, y + 2, parts);
}

function pills(row) {
  if (!row) return [];
  if (row.cidrs.length <= MOST) return row.cidrs;
  const rest = row.cidrs.slice(MOST - 1);
  const more = { cidr: `and ${rest.length} more`, state: rest.find((one) => one.state === "error")?.state ?? rest[0].state };
  return [...row.cidrs.slice(0, MOST - 1), { ...more, label: "see the list" }];
}

function node(x, y, width, { title, lines, state, ours, ghost }) {
  const kind = `node${ours ? " ours" : ""}${ghost ? " ghost" : ""}`;
  const inner = width - 28;
  return s("g", { class: kind, transform: `translate(${x} ${y})` },
    s("rect", { width, height: NODE, rx: 8 }),
    s("text", { x: 14, y: 24, class: "name" }, fit(title, inner, 7.6)),
    lines.filter(Boolean).map((words, index) =>
      s("text", { x: 14, y: 43 + index * 17, class: "line" }, fit(words, inner, 7.3))),
    state ? s("g", { transform: `translate(${width - 28} 11)` }, icon(state)) : null,
  );
}

function drawnPill(x, y, width, pill) {
  return s("g", { class: "node pill", transform: `translate(${x} ${y})` },
    s("rect", { width, height: PILL, rx: 8 }),
    s("g", { transform: "translate(12 14)" }, icon(pill.state)),
    s("text", { x: 37, y: 19, class: "cidr" }, fit(pill.cidr, width - 48, 7.9)),
    s("text", { x: 37, y: 35, class: "line" }, pill.label),
  );
}

/** A line from one point to another; a tunnel has a wall around it. */
function line([x1, y1], [x2, y2], { state, label, under, tunnel }) {
  const upright = x1 === x2;
  const turn = x1 + (x2 - x1) * (label ? 0.34 : 1); // what has a label runs straight beneath it
  const bend = (x1 + turn) / 2;
  const straight = y1 === y2 || upright;
  const way = straight ? `M${x1} ${y1}L${x2} ${y2}` : `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${turn} ${y2}L${x2} ${y2}`;
  const [x, y] = straight ? [(x1 + x2) / 2, (y1 + y2) / 2] : [(turn + x2) / 2, y2];
  const middle = upright ? { x: x + 18, y: y + 4, "text-anchor": "start" } : { x, y: y - 16, "text-anchor": "middle" };
  const beneath = upright ? null : { x, y: y + 26, "text-anchor": "middle" };
  const words = upright && under ? `${label}, ${under}` : label;
  const space = upright ? 300 : Math.abs(x2 - x1) - 4;
  return s("g", { class: `edge ${state}`, "data-state": state },
    tunnel ? s("path", { d: way, class: "wall" }) : null,
    s("path", { d: way, class: "wire" }),
    label && !(upright && state === "plain") ? s("g", { transform: `translate(${x - 9} ${y - 9})` },
      s("circle", { cx: 9, cy: 9, r: 11, class: "behind" }), icon(state, 18)) : null,
    label ? s("text", { ...middle, class: "label" }, fit(words, space, 6.8)) : null,
    under && beneath ? s("text", { ...beneath, class: "label" }, fit(under, space, 6.8)) : null,
  );
}

/** Cut a text to about `width` pixels, at `per` pixels a letter. */
function fit(words, width, per) {
  const most = Math.max(3, Math.floor(width / per));
  return words.length <= most ? words : `${words.slice(0, most - 1)}…`;
}
