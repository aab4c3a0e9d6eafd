/* The links: how each one does, and why not. A join token goes in and is forgotten at once. */

import { request } from "./api.js";
import { ask, reasons, sentence } from "./dialog.js";
import { announce, byId, h, keyed, prose, text, when } from "./dom.js";
import { refresh } from "./feed.js";
import { milliseconds, moment, size, span } from "./format.js";
import { icon } from "./icons.js";
import { mayWrite, read, subscribe } from "./store.js";

const MARK = { up: "ok", connecting: "pending", down: "error" };

export function mount() {
  joining();
  subscribe(({ status }) => {
    if (!status?.links) return;
    const up = status.links.filter((link) => link.state === "up");
    text(byId("links-count"), status.links.length ? `${up.length} of ${status.links.length} up` : "");
    keyed(byId("links-list"), status.links, (link) => link.name, row);
    const empty = byId("links-empty");
    empty.hidden = status.links.length > 0;
    when(empty, true, () => h("p", {}, "No link yet. On the far end, ", h("code", {}, "gtund client add NAME"), " prints a join token; it is good for one use."));
  });
}

function row(first) {
  let link = first;
  const state = h("span", { class: "state" });
  const figures = h("dl", { class: "settings" });
  const why = h("div", { class: "why" });
  const remove = h("button", { type: "button", class: "quiet", "aria-label": `Remove link ${first.name}`, on: { click: () => removing(link) } }, "Remove");
  const root = h("li", { class: "row", "data-link": first.name },
    h("div", { class: "head" },
      h("div", { class: "what" }, h("h3", { class: "mono" }, first.name), state),
      h("div", { class: "acts" }, remove)),
    figures, why);

  function update(now) {
    link = now;
    root.dataset.state = now.state;
    when(state, now.state, () => [icon(MARK[now.state] ?? "error"), now.state]);
    const shown = facts(now);
    when(figures, shown, () => shown.map(([name, value, title]) => h("div", {}, h("dt", {}, name), h("dd", { title: title ?? null }, value))));
    when(why, [now.state, now.code, now.reason], () => (now.state === "up" || !(now.reason || now.code) ? null : h("div", { class: `reason ${MARK[now.state] ?? "error"}`, "data-code": now.code },
      h("p", {}, ...prose(sentence(now.reason || now.code))),
      step(now) ? h("p", { class: "step" }, ...prose(sentence(step(now)))) : null)));
    remove.disabled = !mayWrite();
  }
  return { root, update };
}

function step(link) {
  return read().status.findings.find((finding) => finding.about === link.name)?.next_step ?? "";
}

function facts(link) {
  const minute = Math.floor(Date.now() / 10_000) * 10; // a span that moves on every ten seconds, not at every look
  const found = [["Server", link.server || "–"]];
  if (link.address) found.push(["Address", link.address]);
  if (link.state === "up") {
    found.push(["RTT", milliseconds(link.rtt_ms)]);
    if (link.since) found.push(["Up for", span(Math.max(0, minute - link.since)), `since ${moment(link.since)}`]);
  } else if (link.since) {
    found.push([link.state === "down" ? "Down for" : "Trying for", span(Math.max(0, minute - link.since)), `since ${moment(link.since)}`]);
  }
  const { rx_bytes: received, tx_bytes: sent } = link.counters ?? {};
  if (received !== undefined) found.push(["Received", size(received)]);
  if (sent !== undefined) found.push(["Sent", size(sent)]);
  return found;
}

function removing(link) {
  const users = read().status.cidrs.filter((cidr) => cidr.via === link.name).map((cidr) => cidr.cidr);
  ask({
    title: `Remove link ${link.name}?`,
    body: [
      users.length
        ? h("p", {}, `It carries ${users.join(", ")}: the daemon refuses as long as it does.`)
        : h("p", {}, "Its key is destroyed. To come back, it needs a new join token from the far end."),
    ],
    verb: "Remove link",
    danger: true,
    act: async () => {
      await request("DELETE", `/v1/links/${encodeURIComponent(link.name)}`);
      announce(`Link ${link.name} is removed.`);
      refresh();
    },
  });
}

function joining() {
  const name = h("input", { id: "join-name", name: "name", class: "mono", required: true, maxlength: 11, spellcheck: "false", autocapitalize: "none", placeholder: "hk" });
  const token = h("input", { id: "join-token", name: "token", type: "password", required: true, maxlength: 4096, autocomplete: "off", "aria-describedby": "join-hint" });
  const problem = h("div", { class: "problem", role: "alert" });
  const fields = h("fieldset", {},
    h("div", { class: "line" },
      h("div", { class: "field short" }, h("label", { for: "join-name" }, "Name"), name),
      h("div", { class: "field grow" }, h("label", { for: "join-token" }, "Join token"), token),
      h("button", { type: "submit", class: "primary" }, "Join")),
    h("p", { class: "hint", id: "join-hint" }, "From ", h("code", {}, "gtund client add NAME"), " at the far end. A secret until it is spent."),
    problem);
  const form = byId("join-form");
  form.replaceChildren(fields);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { name: name.value.trim(), token: token.value.trim() };
    token.value = "";
    problem.replaceChildren();
    try {
      await request("POST", "/v1/links", { body });
      form.reset();
      byId("join").open = false;
      announce(`Link ${body.name} is joining.`);
      refresh();
    } catch (error) {
      problem.replaceChildren(...reasons(error));
      token.focus();
    }
  });
  subscribe(() => { fields.disabled = !mayWrite(); });
}
