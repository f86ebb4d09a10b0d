import { shortTime } from "@/lib/format";

/** Time ranges that people pick. A range ends now, on the hour after, so that one hour asks one question. */
export const RANGES = [
  { value: "24h", label: "24 hours", hours: 24, bucket: "hour" },
  { value: "7d", label: "7 days", hours: 24 * 7, bucket: "day" },
  { value: "30d", label: "30 days", hours: 24 * 30, bucket: "day" },
  { value: "90d", label: "90 days", hours: 24 * 90, bucket: "day" },
] as const;

type Preset = (typeof RANGES)[number]["value"];
export type Range = Preset | "custom";
export type Bucket = (typeof RANGES)[number]["bucket"];

/** Whole days in UTC, as the rollups have them, both included: 2026-11-01. */
export interface Dates {
  from?: string;
  to?: string;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** Beyond that many days a chart of hours is no longer read. */
const HOURLY_DAYS = 3;
/** As many buckets as the API gives. */
const MOST_DAYS = 366;

export interface Span {
  from: string;
  to: string;
  bucket: Bucket;
}

export function spanOf(range: Range, dates: Dates = {}, now: number = Date.now()): Span {
  if (range === "custom") return spanOfDays(dates, now);
  const found = RANGES.find((one) => one.value === range) ?? RANGES[0];
  const step = found.bucket === "hour" ? HOUR_MS : 24 * HOUR_MS;
  const to = Math.ceil((now + 1) / step) * step;
  return {
    from: new Date(to - found.hours * HOUR_MS).toISOString(),
    to: new Date(to).toISOString(),
    bucket: found.bucket,
  };
}

function spanOfDays(dates: Dates, now: number): Span {
  const today = Math.floor(now / DAY_MS) * DAY_MS;
  const last = dayOf(dates.to) ?? today;
  const first = Math.min(dayOf(dates.from) ?? last - 6 * DAY_MS, last);
  const days = Math.min(MOST_DAYS, Math.round((last - first) / DAY_MS) + 1);
  const to = last + DAY_MS;
  return {
    from: new Date(to - days * DAY_MS).toISOString(),
    to: new Date(to).toISOString(),
    bucket: days <= HOURLY_DAYS ? "hour" : "day",
  };
}

/** A day's first moment, or null for what is no day. */
function dayOf(text: string | undefined): number | null {
  const at = text && /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  return Number.isNaN(at) ? null : at;
}

export function dateText(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

/** Every bucket's start within a span, so that hours without usage are shown as such. */
export function bucketsOf(span: Span): number[] {
  const step = span.bucket === "hour" ? HOUR_MS : 24 * HOUR_MS;
  const first = Date.parse(span.from);
  const last = Date.parse(span.to);
  return Array.from({ length: Math.max(0, Math.round((last - first) / step)) }, (_, i) => first + i * step);
}

/** The bucket of hours that a moment is in. */
export function hourOf(at: number): number {
  return Math.floor(at / HOUR_MS) * HOUR_MS;
}

const utcDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** A bucket's name on an axis. Days are UTC's, whatever the clock on the wall says; hours are the reader's. */
export function bucketTick(start: number, bucket: Bucket): string {
  return bucket === "day" ? utcDay.format(start) : shortTime(start);
}

/** The same where there is room to say so. */
export function bucketName(start: number, bucket: Bucket): string {
  return bucket === "day" ? `${utcDay.format(start)} (UTC)` : shortTime(start);
}

export function bucketEnd(start: number, bucket: Bucket): number {
  return start + (bucket === "hour" ? HOUR_MS : 24 * HOUR_MS);
}
