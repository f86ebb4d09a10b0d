/**
 * Reading the URL's search part: what is not understood is as if it were not there. A route must answer every key that
 * it knows, with undefined for what it ignores: the router lays its answer over what stands in the URL.
 */
export function oneOf<T extends string>(value: unknown, allowed: readonly T[]): T | undefined {
  return typeof value === "string" && (allowed as readonly string[]).includes(value)
    ? (value as T)
    : undefined;
}

export function text(value: unknown, most = 200): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= most ? value : undefined;
}

/** The last millisecond that a Date can hold. */
const LAST_MS = 8.64e15;

export function moment(value: unknown): number | undefined {
  return typeof value === "number" && Number.isSafeInteger(value) && Math.abs(value) <= LAST_MS
    ? value
    : undefined;
}

/** A day of the calendar: 2026-11-01. */
export function day(value: unknown): string | undefined {
  if (typeof value !== "string" || !/^\d{4}-\d{2}-\d{2}$/.test(value)) return undefined;
  return Number.isNaN(Date.parse(`${value}T00:00:00Z`)) ? undefined : value;
}

export function texts(value: unknown, most: number): string[] | undefined {
  const found = Array.isArray(value) ? value.filter((one) => text(one) !== undefined) : [];
  return found.length > 0 ? (found.slice(0, most) as string[]) : undefined;
}

/** A page of the console and of nowhere else: where a sign-in may lead to. */
export function inside(value: unknown): string | undefined {
  return typeof value === "string" && /^\/admin(\/|$|\?)/.test(value) ? value : undefined;
}
