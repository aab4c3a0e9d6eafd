/* The only file that speaks HTTP. What goes wrong is one of three, by what the caller must do:
 *
 *   Refused       the daemon said no, and why: show its reasons
 *   SignedOut     the token is no longer good: ask for another
 *   Unreachable   nobody answered: keep what is shown, say so, try again */

import { token } from "./session.js";

const PATIENCE = 15_000; // milliseconds; one request

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.title || "The daemon refused");
    this.status = status;
    this.code = problem.code || "";
    this.reasons = problem.reasons?.length
      ? problem.reasons
      : [{ code: this.code, text: problem.detail || this.message, next_step: "" }];
  }
}

export class SignedOut extends Error {}

export class Unreachable extends Error {}

/** Send one request; return the decoded body, or null where there is none. */
export async function request(method, path, { body, headers = {}, signal } = {}) {
  const limit = AbortSignal.timeout(PATIENCE);
  const sent = { method, headers: { accept: "application/json", ...authority(), ...headers }, cache: "no-store" };
  sent.signal = signal ? AbortSignal.any([signal, limit]) : limit;
  if (body !== undefined) {
    sent.body = JSON.stringify(body);
    sent.headers["content-type"] = "application/json";
  }
  const answer = await reached(path, sent, signal);
  if (answer.status === 204) return null;
  try {
    return await answer.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("the answer could not be read");
  }
}

/** Open a stream of server-sent events; return the response, whose body is still to come. */
export function stream(path, { headers, signal }) {
  const sent = { headers: { accept: "text/event-stream", ...authority(), ...headers }, cache: "no-store", signal };
  return reached(path, sent, signal);
}

async function reached(path, sent, signal) {
  let answer;
  try {
    answer = await fetch(path, sent);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("the daemon does not answer");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) throw new SignedOut("the token is not good, or no longer");
  const problem = await answer.json().catch(() => ({}));
  if (!problem.code && answer.status >= 502) throw new Unreachable(`something in between answered ${answer.status}`);
  throw new Refused(answer.status, problem);
}

function authority() {
  const mine = token();
  return mine ? { authorization: `Bearer ${mine}` } : {};
}

/** A key that makes a repeated POST the same request. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The path of one CIDR; its slash is part of the path. */
export function cidrPath(cidr) {
  return `/v1/cidrs/${encodeURIComponent(cidr).replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
}
