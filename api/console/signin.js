/* Who is there: by the token of this tab. Over plain HTTP there is one more way in: the TLS listener speaks none, so the
 * page came through the Unix socket (`ssh -L 8080:/run/nexthop/nexthopd.sock HOST`), which needs no token. */

import { SignedOut, Unreachable, request } from "./api.js";
import { byId, text } from "./dom.js";
import { forget, keep, token } from "./session.js";

/** Return the session, null where a token is needed; raise `Unreachable`. */
export async function current() {
  if (!token() && location.protocol === "https:") return null;
  try {
    return await request("GET", "/v1/session");
  } catch (error) {
    if (error instanceof SignedOut) return null;
    throw error;
  }
}

/** Show the form; call `enter(session)` once a token was good. */
export function mount(enter) {
  const form = byId("signin-form");
  const input = byId("token");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      keep(input.value.trim());
      const session = await current();
      if (session === null) throw new SignedOut();
      input.value = "";
      text(byId("signin-problem"), "");
      enter(session);
    } catch (error) {
      forget();
      const down = error instanceof Unreachable;
      text(byId("signin-problem"), down ? "The daemon does not answer. Try again." : refusal(error));
      input.select();
    } finally {
      button.disabled = false;
    }
  });
}

function refusal(error) {
  if (error instanceof SignedOut) return "This token is not good: it is mistyped, expired or removed.";
  return error.reasons?.[0]?.text ?? "The daemon refused.";
}
