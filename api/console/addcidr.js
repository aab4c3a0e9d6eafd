/* Ask for a CIDR. While it is being written, the daemon is asked what would happen (`dry_run`), so that the plan, the
 * warnings and a refusal are on the screen before anything is done. */

import { Refused, idempotencyKey, request } from "./api.js";
import { reasons } from "./dialog.js";
import { announce, byId, h, prose } from "./dom.js";
import { refresh } from "./feed.js";
import { icon } from "./icons.js";
import { sentence } from "./dialog.js";
import { optionFields } from "./options.js";
import { planList } from "./plan.js";
import { mayWrite, subscribe } from "./store.js";

const PAUSE = 250; // milliseconds after the last key

export function mount() {
  const form = byId("add");
  const cidr = h("input", { id: "add-cidr", name: "cidr", class: "mono", required: true, maxlength: 64, spellcheck: "false",
    autocapitalize: "none", placeholder: "10.244.0.0/16", "aria-describedby": "preview" });
  const via = h("select", { id: "add-via", name: "via" });
  const options = optionFields();
  const preview = h("div", { class: "preview", id: "preview", "aria-live": "polite" });
  const button = h("button", { type: "submit", class: "primary" }, "Add");
  const viaField = h("div", { class: "field" }, h("label", { for: "add-via" }, "Via link"), via);
  const fields = h("fieldset", {},
    h("div", { class: "line" },
      h("div", { class: "field grow" }, h("label", { for: "add-cidr" }, "Add a CIDR"), cidr), viaField, button),
    h("details", { class: "options" }, h("summary", {}, "Options"), options.root),
    preview);
  form.replaceChildren(fields);

  let timer = null;
  let asking = null;
  let key = idempotencyKey();

  const wish = () => ({ cidr: cidr.value.trim(), ...(via.value ? { via: via.value } : {}), ...options.asked() });

  function changed() {
    clearTimeout(timer);
    asking?.abort();
    key = idempotencyKey();
    if (!cidr.value.trim()) return clear();
    preview.setAttribute("aria-busy", "true");
    timer = setTimeout(look, PAUSE);
    return undefined;
  }

  function clear() {
    preview.removeAttribute("aria-busy");
    delete preview.dataset.answer;
    preview.replaceChildren();
  }

  function show(answer, nodes) {
    preview.removeAttribute("aria-busy");
    preview.dataset.answer = answer;
    preview.replaceChildren(...nodes);
  }

  async function look() {
    asking = new AbortController();
    const { signal } = asking;
    try {
      const found = await request("POST", "/v1/cidrs?dry_run=true", { body: wish(), signal });
      if (!signal.aborted) show("plan", planned(found));
    } catch (error) {
      if (!signal.aborted) show("refused", refusal(error));
    }
  }

  async function add(event) {
    event.preventDefault();
    clearTimeout(timer);
    asking?.abort();
    button.disabled = true;
    const asked = wish();
    try {
      await request("POST", "/v1/cidrs", { body: asked, headers: { "idempotency-key": key } });
      form.reset();
      options.reset();
      form.querySelector("details").open = false;
      key = idempotencyKey();
      clear();
      announce(`${asked.cidr} is asked for.`);
      refresh();
    } catch (error) {
      show("refused", refusal(error));
    } finally {
      button.disabled = false;
      cidr.focus();
    }
  }

  form.addEventListener("input", changed);
  form.addEventListener("submit", add);
  subscribe(({ status }) => {
    fields.disabled = !mayWrite();
    const names = (status?.links ?? []).map((link) => link.name);
    if (via.dataset.names !== names.join()) {
      via.dataset.names = names.join();
      const before = via.value;
      via.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === before }, name)));
    }
    viaField.hidden = names.length < 2;
  });
}

function planned(found) {
  const steps = found.plan ?? [];
  const warnings = found.warnings ?? [];
  return [
    h("p", { class: "lead" }, icon("ok"), h("span", {}, steps.length ? "If you add it:" : "If you add it, nothing changes: it is so already.")),
    steps.length ? planList(steps) : null,
    ...warnings.map((warning) => h("div", { class: "reason warn", "data-code": warning.code },
      h("p", {}, icon("warn"), h("span", {}, ...prose(sentence(warning.text)))),
      warning.next_step ? h("p", { class: "step" }, ...prose(sentence(warning.next_step))) : null)),
  ].filter(Boolean);
}

function refusal(error) {
  const lead = error instanceof Refused ? "It cannot be added:" : "It could not be asked:";
  return [h("p", { class: "lead" }, icon("error"), h("span", {}, lead)), ...reasons(error)];
}
