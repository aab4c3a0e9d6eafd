/* Puts the page together: who is signed in, the panels, and what is said when the daemon does not answer. */

import { mount as addCidr } from "./addcidr.js";
import { SignedOut, Unreachable } from "./api.js";
import { mount as charts } from "./charts.js";
import { mount as cidrs } from "./cidrs.js";
import { byId, h, text, when } from "./dom.js";
import { mount as eventLog } from "./eventlog.js";
import { start, stop } from "./feed.js";
import { clock } from "./format.js";
import { icon } from "./icons.js";
import { mount as links } from "./links.js";
import { mount as routes } from "./routes.js";
import { forget } from "./session.js";
import { current, mount as signIn } from "./signin.js";
import { subscribe, write } from "./store.js";
import { mount as topology } from "./topology.js";
import { mount as verdict } from "./verdict.js";

const AGAIN = 2_000; // milliseconds between attempts to learn who is there

function enter(session) {
  write({ session });
  byId("signin").hidden = true;
  byId("console").hidden = false;
  byId("sections").hidden = false;
  byId("sign-out").hidden = session.via !== "token";
  byId("main").focus({ preventScroll: true });
  start(leave);
}

/** Forget the token and everything that it showed. */
function leave() {
  stop();
  forget();
  write({ session: null, status: null, routes: null, traffic: null, events: [], live: false, reachable: true });
  location.reload(); // nothing of what was shown stays in the page's memory
}

function frame({ session, status, live, reachable, seen }) {
  const cloud = status?.cloud;
  text(byId("place"), cloud ? [cloud.instance_id, cloud.vpc_id].filter(Boolean).join(" in ") : "");
  const words = !session ? "" : !reachable ? "not reachable" : live ? "live" : "connecting";
  when(byId("liveness"), words, () => (words ? [icon({ live: "ok", connecting: "pending" }[words] ?? "error"), h("span", {}, words)] : null));
  const lost = byId("unreachable");
  const since = seen ? clock(seen / 1000) : "the start";
  if (!reachable) {
    when(lost, since, () => [icon("error", 18), h("p", {}, h("strong", {}, `The daemon has not answered since ${since}. `),
      seen ? "What is shown is from then. " : "", "Packets keep flowing without it. It is asked again every few seconds.")]);
  }
  lost.hidden = reachable;
  byId("console").dataset.old = String(!reachable);
  byId("read-only").hidden = !session || session.scope === "write";
  when(byId("read-only"), session?.name, () => [icon("absent", 18), h("p", {}, h("strong", {}, "This token may only look. "),
    "To change things, sign in with one of scope ", h("code", {}, "write"), ".")]);
}

async function begin() {
  verdict();
  topology();
  addCidr();
  cidrs();
  routes();
  charts();
  links();
  eventLog();
  signIn(enter);
  subscribe(frame);
  byId("sign-out").addEventListener("click", leave);
  for (;;) {
    try {
      const session = await current();
      if (session) return enter(session);
      forget();
      byId("signin").hidden = false;
      return byId("token").focus();
    } catch (error) {
      if (!(error instanceof Unreachable || error instanceof SignedOut)) throw error;
      byId("console").hidden = false;
      write({ reachable: false });
      await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
    }
  }
}

void begin();
