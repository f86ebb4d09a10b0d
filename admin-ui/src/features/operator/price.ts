import type { DatedPrice } from "@/lib/api/schema";

/** Decimal text per token as decimal text per million, exactly: only the point moves. */
export function perMillion(text: string): string {
  const [whole = "0", fraction = ""] = text.split(".");
  const padded = fraction.padEnd(6, "0");
  const left = (whole + padded.slice(0, 6)).replace(/^0+(?=\d)/, "");
  const right = padded.slice(6).replace(/0+$/, "");
  return right ? `${left}.${right}` : left;
}

/** The reverse. What is no decimal number stays as it is, for the API to refuse in its own words. */
export function perToken(text: string): string {
  const match = /^(\d+)(?:\.(\d+))?$/.exec(text.trim());
  if (!match) return text;
  const digits = (match[1] ?? "").padStart(7, "0");
  const fraction = (digits.slice(-6) + (match[2] ?? "")).replace(/0+$/, "");
  const whole = digits.slice(0, -6).replace(/^0+(?=\d)/, "");
  return fraction ? `${whole}.${fraction}` : whole;
}

/** The latest first, as the API lists them: those of the future are to come, the first of the past holds now. */
export function markCurrent<T extends Pick<DatedPrice, "effective_from">>(
  prices: readonly T[],
  now: number = Date.now(),
): (T & { mark: "now" | "to come" | null })[] {
  const current = prices.findIndex((price) => Date.parse(price.effective_from) <= now);
  return prices.map((price, i) => ({
    ...price,
    mark: i === current ? "now" : current === -1 || i < current ? "to come" : null,
  }));
}
