// Numbers and dates as people say them; instants in the org's time zone.

const NONE = "–";
const shapes = new Map();

function format(shape, instant, timezone) {
  const key = `${timezone} ${JSON.stringify(shape)}`;
  if (!shapes.has(key)) {
    let made;
    try {
      made = new Intl.DateTimeFormat("en-GB", { ...shape, timeZone: timezone });
    } catch { // a zone that the browser does not know
      made = new Intl.DateTimeFormat("en-GB", { ...shape, timeZone: "UTC" });
    }
    shapes.set(key, made);
  }
  return Object.fromEntries(shapes.get(key).formatToParts(new Date(instant)).map((part) => [part.type, part.value]));
}

const THIS_YEAR = new Date().getFullYear();
const yearOf = (year) => (Number(year) === THIS_YEAR ? "" : ` ${year}`);

// Fri 27 Nov, of a date such as 2026-11-27
export function day(date) {
  const parts = format({ weekday: "short", day: "numeric", month: "short", year: "numeric" }, `${date}T12:00:00Z`, "UTC");
  return `${parts.weekday} ${parts.day} ${parts.month}${yearOf(parts.year)}`;
}

// Fri 27 Nov 08:04
export function time(instant, timezone, { seconds = false } = {}) {
  const parts = format({ weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }, instant, timezone);
  return `${parts.weekday} ${parts.day} ${parts.month}${yearOf(parts.year)} ${parts.hour}:${parts.minute}${seconds ? `:${parts.second}` : ""}`;
}

export function clock(instant, timezone) {
  const parts = format({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, instant, timezone);
  return `${parts.hour}:${parts.minute}`;
}

// The local date of an instant, as 2026-11-27.
export function dateOf(instant, timezone) {
  const parts = format({ year: "numeric", month: "2-digit", day: "2-digit" }, instant, timezone);
  return `${parts.year}-${parts.month}-${parts.day}`;
}

// 21–27 November, or 28 November – 4 December
export function days(first, last) {
  const [one, other] = [first, last].map((date) => format({ day: "numeric", month: "long", year: "numeric" }, `${date}T12:00:00Z`, "UTC"));
  if (first === last) return `${one.day} ${one.month}${yearOf(one.year)}`;
  if (one.month === other.month && one.year === other.year) return `${one.day}–${other.day} ${one.month}${yearOf(one.year)}`;
  return `${one.day} ${one.month}${one.year === other.year ? "" : ` ${one.year}`} – ${other.day} ${other.month}${yearOf(other.year)}`;
}

export function bucket(seconds, granularity, timezone) {
  const instant = seconds * 1000;
  if (granularity === "hourly") return time(instant, timezone);
  if (granularity === "daily") return day(dateOf(instant, timezone));
  const parts = format({ month: "long", year: "numeric" }, instant, timezone);
  return `${parts.month} ${parts.year}`;
}

export const shift = (date, by) => new Date(Date.parse(date) + by * 86400000).toISOString().slice(0, 10);

export const number = (value) => (value === null || value === undefined ? NONE : value.toLocaleString("en"));
// 6.16 M where the digits would not fit a tile
export const short = (value) => (value >= 1e6 ? new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(value).replace(/([A-Z])$/, " $1") : number(value));
export const percent = (share, digits = 1) => (share === null || share === undefined ? NONE : `${(share * 100).toFixed(digits)} %`);

// 1:48, of milliseconds
export function duration(ms) {
  if (ms === null || ms === undefined) return NONE;
  const whole = Math.round(ms / 1000), hours = Math.floor(whole / 3600);
  const rest = `${String(Math.floor(whole / 60) % 60).padStart(hours ? 2 : 1, "0")}:${String(whole % 60).padStart(2, "0")}`;
  return hours ? `${hours}:${rest}` : rest;
}

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

const arrow = (value) => (value > 0 ? "▲" : value < 0 ? "▼" : "");

// The change between two values, as text and as a number to sort by; `better` is 1 where more is better, -1 where less is.
export function change(now, before, kind, better = 0) {
  if (now === null || now === undefined || before === null || before === undefined) return { text: NONE, value: null, tone: "flat" };
  let value, text;
  if (kind === "points") {
    value = Math.round((now - before) * 1000) / 10;
    text = value ? `${arrow(value)} ${Math.abs(value).toFixed(1)}` : "0.0";
  } else if (kind === "duration") {
    value = Math.round((now - before) / 1000);
    text = value ? `${arrow(value)} ${Math.abs(value) < 60 ? `${Math.abs(value)} s` : duration(Math.abs(value) * 1000)}` : "0 s";
  } else {
    if (!before) return { text: now ? "new" : "0 %", value: now ? Infinity : 0, tone: "flat" };
    value = Math.round((now / before - 1) * 1000) / 10;
    text = value ? `${arrow(value)} ${Math.abs(value).toFixed(Math.abs(value) < 100 ? 1 : 0)} %` : "0.0 %";
  }
  const slight = Math.abs(value) < { points: 0.5, duration: 5 }[kind];
  const tone = !value || !better || slight ? "flat" : value * better > 0 ? "up" : "down";
  return { text, value, tone };
}

// "inbound call", of INBOUNDCALL
export const flowType = (type) => type?.toLowerCase().replace("shortmessage", "message").replace(/^(inbound|outbound|inqueue|secure|survey|voice|common|digital)(?=.)/, "$1 ");
