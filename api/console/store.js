/* What the page knows, in one place. Panels read it and draw; only `feed.js` and `main.js` write it.
 *
 * Data that is old stays until there is newer: `reachable` says whether it is, `seen` (milliseconds) since when not. */

const state = {
  session: null,
  status: null,
  routes: null,
  traffic: null,
  events: [],
  live: false,
  reachable: true,
  seen: null,
};

const readers = new Set();
let told = false;

export function read() {
  return state;
}

/** Change some of it; every reader is told once, before the next frame is drawn. */
export function write(change) {
  Object.assign(state, change);
  if (told) return;
  told = true;
  queueMicrotask(() => {
    told = false;
    for (const reader of readers) reader(state);
  });
}

export function subscribe(reader) {
  readers.add(reader);
  reader(state);
}

/** Whether this session may change things. */
export function mayWrite() {
  return state.session?.scope === "write";
}
