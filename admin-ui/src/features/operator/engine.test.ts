import { expect, it } from "vitest";
import type { EngineReport } from "@/lib/api/schema";
import { partsOf } from "./engine-card";

const engine = {
  pages: { total: 10, free: 6, cached: 3, live_bytes: 100, cached_bytes: 300 },
  adapters: [{ digest: "a", state: "resident", bytes: 50, users: 0 }],
} as unknown as EngineReport;

it("adds up what pages and adapters hold, and measures free pages by those that are held", () => {
  expect(partsOf(engine).map((part) => [part.label, part.bytes])).toEqual([
    ["KV in use", 100],
    ["KV kept for its prefix", 300],
    ["adapters", 50],
    ["free pages", 600],
  ]);
});

it("says nothing of memory it has not seen used", () => {
  const fresh = {
    ...engine,
    pages: { total: 10, free: 10, cached: 0, live_bytes: 0, cached_bytes: 0 },
    adapters: [],
  };
  expect(partsOf(fresh)).toEqual([]);
});
