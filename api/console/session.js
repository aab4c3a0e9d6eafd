/* The bearer token: in sessionStorage, so that it ends with the tab; in no address, no cookie and no log. */

const KEY = "nexthop-token";

export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function keep(value) {
  sessionStorage.setItem(KEY, value);
}

export function forget() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // there is none to forget
  }
}
