/* The way of a packet as a picture's content: nodes and lines with a state each, and the same in sentences. Pure. */

import { milliseconds, rate } from "./format.js";
import { pathWord, worst } from "./layers.js";

const LINK = { up: "ok", connecting: "pending", down: "error" };

/** Return what the drawing shows, from the bodies of /v1/status, /v1/routes and /v1/traffic (the last two may be null). */
export function describe(status, routes, traffic) {
  const wanted = status.cidrs.filter((cidr) => cidr.phase === "present");
  const cloud = status.cloud.error ? "error" : worst(wanted.map((cidr) => cidr.layers.cloud.state));
  const kernel = worst(wanted.map((cidr) => cidr.layers.kernel.state));
  const part = (layer) => {
    const ready = wanted.filter((cidr) => cidr.layers[layer].state === "ok").length;
    return wanted.length ? `${ready} of ${wanted.length}` : "none yet";
  };
  return {
    hosts: { title: "Hosts", lines: [status.cloud.vpc_id || "your VPC", switches(routes)] },
    table: { title: status.cloud.tables.length > 1 ? "VPC route tables" : "VPC route table", lines: tables(status) },
    attract: { state: cloud, label: part("cloud"), under: cloud === "error" ? "not as wanted" : "routed here" },
    appliance: {
      title: "Nexthop",
      lines: [status.cloud.instance_id || "this machine", `kernel: ${part("kernel")}`],
      state: kernel,
    },
    links: status.links.map((link) =>
      branch(link, wanted.filter((cidr) => cidr.via === link.name), traffic?.links?.[link.name])),
  };
}

function branch(link, cidrs, samples) {
  const state = LINK[link.state] ?? "error";
  return {
    name: link.name,
    state,
    label: state === "ok" ? `up, ${milliseconds(link.rtt_ms)}` : link.state,
    under: state === "ok" ? flow(samples) : link.code,
    far: { title: `Far site ${link.name}`, lines: [link.server || "no server", link.peer ? `tunnel ${link.peer}` : ""] },
    cidrs: cidrs.map((cidr) => ({ cidr: cidr.cidr, state: cidr.path.state, label: `path: ${pathWord(cidr)}` })),
  };
}

function flow(samples) {
  return samples?.at?.length ? `↓ ${short(samples.rx_bps.at(-1))} ↑ ${short(samples.tx_bps.at(-1))}` : "";
}

/** "6.56 Mbit/s" -> "6.56M", where there is little room. */
function short(bps) {
  return rate(bps).replace("bit/s", "").replace(" ", "");
}

function tables(status) {
  const names = status.cloud.tables;
  if (names.length <= 2) return names.length ? [...names] : ["not seen yet"];
  return [names[0], `and ${names.length - 1} more`];
}

function switches(routes) {
  const found = new Set(routes?.tables?.flatMap((table) => table.vswitches ?? []) ?? []);
  return found.size ? `${found.size} vSwitch${found.size === 1 ? "" : "es"}` : "";
}

/** The same for who does not look: one sentence each. */
export function sentences(path) {
  const lines = path.links.map((link) => {
    const beyond = link.cidrs.map((cidr) => `${cidr.cidr} (${cidr.label})`).join(", ") || "no CIDR";
    return `Link ${link.name} is ${link.label}${link.state === "ok" || !link.under ? "" : `, ${link.under}`}; beyond it: ${beyond}.`;
  });
  return [
    `The VPC sends ${path.attract.label} of the CIDRs here: ${path.attract.state}.`,
    `The kernel carries them: ${path.appliance.lines[1].replace("kernel: ", "")}.`,
    ...(lines.length ? lines : ["There is no link yet."]),
  ];
}
