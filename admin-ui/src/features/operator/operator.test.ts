import { expect, it } from "vitest";
import type { HeadroomView } from "@/lib/api/schema";
import { markCurrent, perMillion, perToken } from "./price";
import { quotaOf, refusals, type Typed } from "./quota";

it("moves the point of a price and nothing else, both ways", () => {
  for (const [token, million] of [
    ["0.0000005", "0.5"],
    ["0.00000005", "0.05"],
    ["0.0000015", "1.5"],
    ["0", "0"],
    ["1.5", "1500000"],
    ["0.000000001", "0.001"],
  ] as const) {
    expect(perMillion(token)).toBe(million);
    expect(perToken(million)).toBe(token);
  }
  expect(perToken("cheap")).toBe("cheap");
});

it("marks the price that holds now and those to come", () => {
  const prices = ["2030-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2020-01-01T00:00:00Z"].map(
    (effective_from) => ({ effective_from }),
  );
  expect(markCurrent(prices, Date.parse("2026-06-01T00:00:00Z")).map((price) => price.mark)).toEqual([
    "to come",
    "now",
    null,
  ]);
});

const typed: Typed = { concurrency: "", requestsPerMinute: "", budget: "", period: "total" };
const room = { running: 3, spent: "2.00", spent_this_month: "0.50", budget_period: "total" } as HeadroomView;

it("sends nothing for no limit, and what is no number as one that is refused", () => {
  expect(quotaOf(typed)).toEqual({
    concurrency: null,
    requests_per_minute: null,
    budget: null,
    budget_period: "total",
  });
  expect(quotaOf({ ...typed, concurrency: "many" }).concurrency).toBe(-1);
});

it("says beforehand which limit would refuse the next request", () => {
  expect(refusals({ ...typed, budget: "1.99" }, room)).toBe("budget");
  expect(refusals({ ...typed, budget: "1.99", period: "month" }, room)).toBeNull();
  expect(refusals({ ...typed, concurrency: "3" }, room)).toBe("concurrency");
  expect(refusals({ ...typed, concurrency: "4", budget: "3" }, room)).toBeNull();
});
