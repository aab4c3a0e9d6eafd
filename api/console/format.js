/* Figures for people: units of networks (bits per second, powers of ten), times of the reader's clock. */

const RATES = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
const SIZES = ["B", "kB", "MB", "GB", "TB"];

function scaled(value, units) {
  let step = 0;
  let left = value;
  while (left >= 999.5 && step < units.length - 1) {
    left /= 1000;
    step += 1;
  }
  const digits = step === 0 || left >= 99.95 ? 0 : left >= 9.995 ? 1 : 2;
  return `${left.toFixed(digits)} ${units[step]}`;
}

/** 34200000 -> "34.2 Mbit/s". */
export function rate(bps) {
  return known(bps) ? scaled(bps, RATES) : "–";
}

/** 5120000 -> "5.12 MB". */
export function size(bytes) {
  return known(bytes) ? scaled(bytes, SIZES) : "–";
}

/** 23.94 -> "23.9 ms". */
export function milliseconds(value) {
  if (!known(value)) return "–";
  return `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

/** 0.0123 -> "1.2 %". */
export function percent(ratio) {
  if (!known(ratio)) return "–";
  const value = ratio * 100;
  return `${value === 0 ? "0" : value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** Seconds since the epoch -> "02:14:09". */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

/** Seconds since the epoch -> "2026-11-23 02:14:09", for a title. */
export function moment(at) {
  const day = new Date(at * 1000);
  const pad = (value) => String(value).padStart(2, "0");
  return `${day.getFullYear()}-${pad(day.getMonth() + 1)}-${pad(day.getDate())} ${clock(at)}`;
}

/** Seconds -> "3 min", in the largest unit that fits. */
export function span(seconds) {
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return `${left} s`;
  if (left < 3600) return `${Math.floor(left / 60)} min`;
  if (left < 86400) return `${Math.floor(left / 3600)} h ${Math.floor((left % 3600) / 60)} min`;
  return `${Math.floor(left / 86400)} d ${Math.floor((left % 86400) / 3600)} h`;
}

/** 2, "CIDR" -> "2 CIDRs". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}
