/* Keeps the store fresh: status, route tables and traffic by asking, events by a stream.
 *
 * The stream also says when something changed, so that asking again need not wait for the next turn. While nobody looks
 * (the tab is hidden) nothing is asked. Whatever fails is tried again, later and later, never in a hurry. */

import { Refused, SignedOut, Unreachable, request, stream } from "./api.js";
import { events } from "./sse.js";
import { read, write } from "./store.js";

const TURN = { status: 4_000, routes: 15_000, traffic: 2_000 }; // milliseconds
const LONGEST_PAUSE = 10_000;
const KEPT_EVENTS = 200;

let ending = null; // aborts everything that is under way
let onSignedOut = () => {};
let hurry = null;

/** Start to ask, until `stop`; `signedOut` is called once where the token is refused. */
export function start(signedOut) {
  stop();
  ending = new AbortController();
  onSignedOut = signedOut;
  const { signal } = ending;
  void turn("status", "/v1/status", signal);
  void turn("routes", "/v1/routes", signal);
  void turn("traffic", "/v1/traffic", signal);
  void follow(signal);
}

export function stop() {
  ending?.abort();
  ending = null;
}

/** Ask for status and routes now, once for many calls in a row. */
export function refresh() {
  hurry ??= setTimeout(() => {
    hurry = null;
    if (!ending) return;
    const { signal } = ending;
    void ask("status", "/v1/status", signal);
    void ask("routes", "/v1/routes", signal);
  }, 120);
}

async function turn(name, path, signal) {
  let pause = TURN[name];
  while (!signal.aborted) {
    if (!document.hidden) {
      const answered = await ask(name, path, signal);
      pause = answered ? TURN[name] : Math.min(pause * 1.5, LONGEST_PAUSE);
    }
    await sleep(pause, signal);
  }
}

/** Ask once; return whether an answer came. A refusal is an answer: what it is about stays unknown. */
async function ask(name, path, signal) {
  try {
    const answer = await request("GET", path, { signal });
    write({ [name]: answer, reachable: true, seen: Date.now() });
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    if (error instanceof SignedOut) onSignedOut();
    else if (error instanceof Refused) write({ [name]: { refused: error.reasons }, reachable: true, seen: Date.now() });
    else if (error instanceof Unreachable) write({ reachable: false });
    else throw error;
    return error instanceof Refused;
  }
}

/** Follow the events: first what was, then what comes, from where the last stream ended. */
async function follow(signal) {
  let pause = 1_000;
  let last = null;
  while (!signal.aborted) {
    try {
      if (last === null) last = await past(signal);
      const headers = last === "" ? {} : { "last-event-id": last };
      const response = await stream("/v1/events", { headers, signal });
      write({ live: true, reachable: true });
      pause = 1_000;
      refresh(); // what happened while no stream was open
      for await (const event of events(response)) {
        if (event.id) last = event.id;
        if (event.event !== "state") append([{ ...JSON.parse(event.data), id: event.id }]);
        refresh();
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof SignedOut) onSignedOut();
    }
    write({ live: false });
    await sleep(pause, signal);
    pause = Math.min(pause * 1.5, LONGEST_PAUSE);
  }
}

/** Fetch the last events; return the id of the newest, "" where there is none. */
async function past(signal) {
  const found = (await request("GET", "/v1/events?limit=100", { signal })).events;
  append(found);
  return found.length ? String(found.at(-1).id) : "";
}

function append(more) {
  const known = new Set(read().events.map((event) => String(event.id)));
  const fresh = more.filter((event) => !known.has(String(event.id)));
  if (fresh.length) write({ events: [...read().events, ...fresh].slice(-KEPT_EVENTS) });
}

function sleep(limit, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, limit);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done);
  });
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
