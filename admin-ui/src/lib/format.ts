const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function count(value: number): string {
  return Math.abs(value) < 100_000 ? whole.format(value) : compact.format(value);
}

/** What all money of this installation is in (ISO 4217), as the session tells it before any page is drawn. */
let currency = "USD";

export function setCurrency(code: string): void {
  currency = code;
}

/** For headings: in words that a spreadsheet keeps. */
export function inCurrency(heading: string): string {
  return `${heading} (${currency})`;
}

/** Decimal text as the API gives it, in as few digits as still tell amounts apart: $12.34, $0.0123, $0.000045. */
export function money(text: string): string {
  const value = Number(text);
  if (!Number.isFinite(value)) return text;
  const size = Math.abs(value);
  if (size === 0) return spoken(0, 0, 0);
  if (size >= 1) return spoken(value);
  const digits = Math.min(9, Math.ceil(-Math.log10(size)) + 2);
  return spoken(value, Math.min(2, digits), digits);
}

/** A price, every digit of it: what is charged must not be rounded where it is read. */
export function price(text: string): string {
  const value = Number(text);
  return Number.isFinite(value) ? spoken(value, 0, 12) : text;
}

/** Without bounds, as many digits as the currency has: two for dollars, none for yen. */
function spoken(value: number, least?: number, most?: number): string {
  return new Intl.NumberFormat("en", {
    style: "currency",
    currency,
    minimumFractionDigits: least,
    maximumFractionDigits: most,
  }).format(value);
}

/** A share in percent; what rounds to 0 or 100 without being it says so. */
export function percent(share: number | null | undefined): string {
  if (share === null || share === undefined || !Number.isFinite(share)) return "–";
  if (share > 0 && share < 0.001) return "<0.1%";
  if (share < 1 && share > 0.999) return ">99.9%";
  return `${(share * 100).toLocaleString("en", { maximumFractionDigits: share < 0.1 ? 1 : 0 })}%`;
}

export function share(part: number, all: number): number | null {
  return all > 0 ? part / all : null;
}

export function milliseconds(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return "<1 ms";
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size.toLocaleString("en", { maximumFractionDigits: size < 10 && unit > 0 ? 1 : 0 })} ${units[unit]}`;
}

const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const short = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});

export function dateTime(text: string | null | undefined): string {
  return text ? moment.format(new Date(text)) : "never";
}

export function shortTime(text: string | number): string {
  return short.format(new Date(text));
}

/** How long ago, in one unit. */
export function ago(text: string | null | undefined, now: number = Date.now()): string {
  if (!text) return "never";
  const seconds = Math.round((now - new Date(text).getTime()) / 1000);
  if (seconds < 0) return `in ${span(-seconds)}`;
  return seconds < 10 ? "just now" : `${span(seconds)} ago`;
}

export function span(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** An id or digest for people: its beginning is enough to compare. */
export function brief(id: string, letters = 8): string {
  const at = id.indexOf("_");
  const head = at >= 0 ? id.slice(0, at + 1) : "";
  return head + id.slice(head.length, head.length + letters);
}
