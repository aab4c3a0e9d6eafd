/* The last ten minutes of one link: throughput, round-trip time, loss. The figure over each chart is the newest sample, or
 * the one under the pointer; what is sent is dashed and what is received is solid, so colour is not needed to tell. */

import uPlot from "./vendor/uPlot.esm.js";
import { byId, h, text, when } from "./dom.js";
import { clock, known, milliseconds, percent, rate } from "./format.js";
import { subscribe } from "./store.js";

const WINDOW = 600; // seconds, once there are so many; and at least
const SHORTEST = 60;
const CHARTS = [
  {
    id: "throughput",
    title: "Throughput",
    height: 120,
    show: rate,
    least: 1000,
    series: [
      { name: "received", field: "rx_bps", colour: "--chart-1", fill: "--chart-1-soft" },
      { name: "sent", field: "tx_bps", colour: "--chart-2", dash: [5, 3] },
    ],
  },
  { id: "rtt", title: "Round-trip time", height: 92, show: milliseconds, least: 1, series: [{ name: "", field: "rtt_ms", colour: "--chart-3" }] },
  { id: "loss", title: "Loss", height: 92, show: percent, least: 0.01, bottom: true, series: [{ name: "", field: "loss", colour: "--chart-4", fill: "--chart-4-soft" }] },
];

export function mount() {
  const places = CHARTS.map(frame);
  byId("charts").replaceChildren(...places.map((place) => place.root));
  const pick = byId("traffic-link");
  let latest = null;

  function show() {
    const names = Object.keys(latest?.links ?? {}).sort();
    when(pick, names, () => names.map((name) => h("option", { value: name, selected: name === pick.value }, name)));
    byId("traffic-pick").hidden = names.length < 2;
    const samples = latest?.links?.[pick.value];
    const some = Boolean(samples?.at?.length);
    byId("charts").hidden = !some;
    const empty = byId("traffic-empty");
    empty.hidden = some || latest === null;
    when(empty, names.length, () => h("p", {}, names.length ? "No samples yet. The first come within seconds." : "No link yet, so nothing is measured."));
    if (some) for (const place of places) place.draw(samples, pick.value);
  }

  pick.addEventListener("change", show);
  subscribe(({ traffic }) => {
    if (!traffic || traffic === latest) return;
    latest = traffic;
    show();
  });
  document.addEventListener("themechange", () => {
    for (const place of places) place.forget();
    show();
  });
}

function frame(chart) {
  const when_ = h("span", { class: "meta" });
  const figures = chart.series.map((series) => h("span", { class: "value" }));
  const legend = h("p", { class: "figures" }, chart.series.map((series, index) =>
    h("span", { class: "figure" }, h("span", { class: `key ${series.field}`, "aria-hidden": "true" }), figures[index], series.name ? h("span", { class: "meta" }, series.name) : null)));
  const canvas = h("div", { class: "canvas", role: "img" });
  const root = h("section", { class: "chart", id: `chart-${chart.id}`, "aria-label": chart.title },
    h("div", { class: "subtitle" }, h("h3", {}, chart.title), when_), legend, canvas);
  let plot = null;
  let data = null;

  function say(index) {
    const newest = data[0].length - 1;
    const at = index ?? newest;
    chart.series.forEach((series, number) => text(figures[number], chart.show(data[number + 1][at])));
    text(when_, index === null || index === undefined || index === newest ? "now" : clock(data[0][at]));
  }

  function draw(samples, link) {
    data = [samples.at, ...chart.series.map((series) => samples[series.field])];
    if (!plot) plot = new uPlot(shape(chart, canvas, say), data, canvas);
    else plot.setData(data);
    say(plot.cursor.idx);
    const now = chart.series.map((series, index) => `${series.name} ${chart.show(data[index + 1].at(-1))}`.trim()).join(", ");
    canvas.setAttribute("aria-label", `${chart.title} of link ${link} over the last ten minutes; now ${now}`);
  }

  function forget() {
    plot?.destroy();
    plot = null;
  }

  new ResizeObserver(() => {
    if (plot && canvas.clientWidth) plot.setSize({ width: canvas.clientWidth, height: chart.height });
  }).observe(canvas);
  return { root, draw, forget };
}

function shape(chart, canvas, say) {
  const quiet = colour("--ink-3");
  const grid = { stroke: colour("--line-soft"), width: 1 };
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  return {
    width: canvas.clientWidth || 300,
    height: chart.height,
    padding: [8, 16, chart.bottom ? 0 : 4, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "traffic" }, points: { size: 6 } },
    scales: {
      x: { time: true, range: (_plot, min, max) => [max - Math.min(WINDOW, Math.max(SHORTEST, max - min)), max] },
      y: { range: (_plot, _min, max) => [0, Math.max((known(max) ? max : 0) * 1.15, chart.least)] },
    },
    axes: [
      { stroke: quiet, font, grid, ticks: { show: false }, size: chart.bottom ? 22 : 0, gap: 4, space: 70,
        values: (_plot, splits, _axis, _space, step) =>
          splits.map((at) => (chart.bottom ? clock(at).slice(0, step < 60 ? 8 : 5) : "")) },
      { stroke: quiet, font, grid, ticks: { show: false }, size: 64, gap: 6, space: 34,
        values: (_plot, splits) => splits.map((value) => (value ? chart.show(value).replace(/\.0+ /, " ") : "0")) },
    ],
    series: [
      {},
      ...chart.series.map((series) => ({
        stroke: colour(series.colour), width: 1.5, dash: series.dash, fill: series.fill ? colour(series.fill) : undefined,
        points: { show: false }, spanGaps: false,
      })),
    ],
    hooks: { setCursor: [(plot) => say(plot.cursor.idx)] },
  };
}

/** A custom property as the colour that it comes to in this theme: a canvas cannot read light-dark(). */
function colour(name) {
  const probe = h("span", { class: "unseen" });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
