/* Elements from values. The rule of this page: data becomes text or an attribute, never markup.
 *
 * `keyed` keeps an element for as long as its item is there, so that focus, open details and what somebody is typing
 * survive every refresh. */

const SVG = "http://www.w3.org/2000/svg";

/** Return an element: `on` holds listeners, false, null and undefined leave an attribute out, true sets it empty. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [type, listener] of Object.entries(value)) element.addEventListener(type, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

/** Set an element's text, and touch it only where that is news: a live region speaks at every touch. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Replace an element's children where `signature` (any JSON) is not what it was. */
export function when(element, signature, make) {
  const mark = JSON.stringify(signature);
  if (element.dataset.mark === mark) return;
  element.dataset.mark = mark;
  element.replaceChildren(...[make()].flat().filter(Boolean));
}

/** Show `items` in `parent`, one view each: `make(item)` returns {root, update(item)}. Order follows `items`. */
export function keyed(parent, items, key, make) {
  const views = (parent.views ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, view] of views) {
    if (!wanted.has(name)) {
      view.root.remove();
      views.delete(name);
    }
  }
  items.forEach((item, index) => {
    const name = key(item);
    if (!views.has(name)) views.set(name, make(item));
    const view = views.get(name);
    view.update(item);
    if (parent.children[index] !== view.root) parent.insertBefore(view.root, parent.children[index] ?? null);
  });
}

/** Return a sentence as nodes: what stands in `back quotes` is a command. */
export function prose(sentence) {
  return String(sentence ?? "")
    .split("`")
    .map((part, index) => (index % 2 ? h("code", {}, part) : part))
    .filter((part) => part !== "");
}

/** Say something to who listens instead of looking. */
export function announce(sentence) {
  text(byId("announcer"), sentence);
}
