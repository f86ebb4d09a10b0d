import { expect, it } from "vitest";
import type { SeriesPoint } from "@/lib/api/schema";
import { bucketEnd, bucketsOf, spanOf } from "./ranges";
import { stackOf } from "./stack";

const span = { from: "2026-01-01T00:00:00.000Z", to: "2026-01-01T03:00:00.000Z", bucket: "hour" } as const;

function point(at: string, change: Partial<SeriesPoint>): SeriesPoint {
  return {
    at,
    id: null,
    label: null,
    rest: false,
    requests: 1,
    prompt_tokens: 3,
    cached_tokens: 0,
    completion_tokens: 2,
    drafted_tokens: 0,
    accepted_tokens: 0,
    cost: "1.00",
    ...change,
  };
}

it("keeps hours without usage, and every amount in its hour", () => {
  const stack = stackOf(
    [
      point("2026-01-01T00:00:00Z", { id: "adp_a", label: "a", cost: "0.10" }),
      point("2026-01-01T02:00:00Z", { id: "adp_a", label: "a", cost: "0.20" }),
      point("2026-01-01T02:00:00Z", { rest: true, cost: "5.00" }),
    ],
    span,
    "cost",
  );
  expect(stack.groups.map((group) => group.label)).toEqual(["a", "all others"]);
  expect(stack.rows.map((row) => row.adp_a)).toEqual([0.1, 0, 0.2]);
  expect(stack.rows.map((row) => row.rest)).toEqual([0, 0, 5]);
});

it("tells the base model, which has no id, from the rest", () => {
  const stack = stackOf(
    [point("2026-01-01T01:00:00Z", { label: "base" }), point("2026-01-01T01:00:00Z", { rest: true })],
    span,
    "tokens",
  );
  expect(stack.groups.map((group) => [group.label, group.total])).toEqual([
    ["base", 5],
    ["all others", 5],
  ]);
});

it("asks the same question all through an hour, and ends after now", () => {
  const early = spanOf("24h", {}, Date.parse("2026-01-02T10:00:00Z"));
  expect(spanOf("24h", {}, Date.parse("2026-01-02T10:59:59Z"))).toEqual(early);
  expect(early.to).toBe("2026-01-02T11:00:00.000Z");
  expect(bucketsOf(early)).toHaveLength(24);
  expect(bucketsOf(spanOf("90d"))).toHaveLength(90);
  expect(bucketEnd(0, "day")).toBe(86_400_000);
});

it("takes whole days, both included, and reads few of them by the hour", () => {
  const now = Date.parse("2026-01-20T10:00:00Z");
  const week = spanOf("custom", { from: "2026-01-05", to: "2026-01-11" }, now);
  expect(week).toEqual({ from: "2026-01-05T00:00:00.000Z", to: "2026-01-12T00:00:00.000Z", bucket: "day" });
  expect(spanOf("custom", { from: "2026-01-05", to: "2026-01-07" }, now).bucket).toBe("hour");
  expect(bucketsOf(spanOf("custom", { from: "2020-01-01", to: "2026-01-07" }, now))).toHaveLength(366);
  expect(spanOf("custom", { from: "2026-02-30x", to: "nonsense" }, now).to).toBe("2026-01-21T00:00:00.000Z");
  expect(bucketsOf(spanOf("custom", { from: "2026-01-09", to: "2026-01-07" }, now))).toHaveLength(24);
});
