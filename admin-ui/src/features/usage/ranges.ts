/** Time ranges that charts know. A range ends now, on the hour after, so that one hour asks one question. */
export const RANGES = [
  { value: "24h", label: "24 hours", hours: 24, bucket: "hour" },
  { value: "7d", label: "7 days", hours: 24 * 7, bucket: "day" },
  { value: "30d", label: "30 days", hours: 24 * 30, bucket: "day" },
  { value: "90d", label: "90 days", hours: 24 * 90, bucket: "day" },
] as const;

export type Range = (typeof RANGES)[number]["value"];
type Bucket = (typeof RANGES)[number]["bucket"];

const HOUR_MS = 3_600_000;

export interface Span {
  from: string;
  to: string;
  bucket: Bucket;
}

export function spanOf(range: Range, now: number = Date.now()): Span {
  const found = RANGES.find((one) => one.value === range) ?? RANGES[0];
  const step = found.bucket === "hour" ? HOUR_MS : 24 * HOUR_MS;
  const to = Math.ceil((now + 1) / step) * step;
  return {
    from: new Date(to - found.hours * HOUR_MS).toISOString(),
    to: new Date(to).toISOString(),
    bucket: found.bucket,
  };
}

/** Every bucket's start within a span, so that hours without usage are shown as such. */
export function bucketsOf(span: Span): number[] {
  const step = span.bucket === "hour" ? HOUR_MS : 24 * HOUR_MS;
  const first = Date.parse(span.from);
  const last = Date.parse(span.to);
  return Array.from({ length: Math.max(0, Math.round((last - first) / step)) }, (_, i) => first + i * step);
}

export function bucketEnd(start: number, bucket: Bucket): number {
  return start + (bucket === "hour" ? HOUR_MS : 24 * HOUR_MS);
}
