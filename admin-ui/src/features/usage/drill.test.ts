import { expect, it } from "vitest";
import type { SeriesPoint, UsageEventView } from "@/lib/api/schema";
import { drilled, namesOf } from "./drill";
import { bucketName, bucketTick } from "./ranges";

const part = { key: "k", id: "ver_1" as string | null, label: "brief:1", rest: false, total: 1 };

it("drills by whatever the bars stand for", () => {
  expect(drilled("version", part)).toEqual({ version: "ver_1" });
  expect(drilled("adapter", part)).toEqual({ adapter: "ver_1" });
  expect(drilled("key", part)).toEqual({ key: "ver_1" });
  expect(drilled("version", { ...part, id: null, label: "base" })).toEqual({ base: "base" });
  for (const nothing of [null, { ...part, id: null, rest: true }])
    expect(drilled("adapter", nothing)).toEqual({});
  expect(drilled("total", { ...part, id: null })).toEqual({});
});

it("calls ids by their names, from charts and from requests", () => {
  const event = {
    key: "key_1",
    key_name: "service",
    adapter: "adp_1",
    adapter_name: "brief",
    version: "ver_1",
    version_number: 2,
  } as UsageEventView;
  const alone = { key: "key_2", key_name: "other", adapter: null, adapter_name: null } as UsageEventView;
  const names = namesOf([{ id: "adp_2", label: "greet" } as SeriesPoint], [event, alone]);
  expect(Object.fromEntries(names)).toEqual({
    key_1: "service",
    key_2: "other",
    adp_1: "brief",
    ver_1: "brief:2",
    adp_2: "greet",
  });
});

it("names days as UTC has them, wherever one reads", () => {
  const day = Date.parse("2026-11-21T00:00:00Z");
  expect([bucketTick(day, "day"), bucketName(day, "day")]).toEqual(["21 Nov", "21 Nov (UTC)"]);
  expect(bucketName(day, "hour")).not.toContain("UTC");
});
