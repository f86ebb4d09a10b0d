import { expect, it } from "vitest";
import type { EngineReport, StepTimes } from "@/lib/api/schema";
import { brieflyTimed, costsOf, partsOf, stageOf } from "./engine";

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

it("writes short times in the unit that tells them apart", () => {
  expect([0, 2e-7, 3.4e-5, 0.0123, 0.25, 1.5].map(brieflyTimed)).toEqual([
    "0 µs",
    "<1 µs",
    "34 µs",
    "12.3 ms",
    "250 ms",
    "1.50 s",
  ]);
});

it("lists every coefficient of the fit once", () => {
  const { measured, error, expected, took, ...fitted } = {
    measured: 1,
    error: 2,
    expected: 3,
    took: 4,
    step: 5,
    row: 6,
    first_guess: 7,
    guess: 8,
    prompt_token: 9,
    kilo_attended: 10,
    kilo_prompt_attended: 11,
  } satisfies Required<StepTimes>;
  const values = costsOf({ measured, error, expected, took, ...fitted }).map(([, seconds]) => seconds);
  expect(values.sort((a, b) => a - b)).toEqual(Object.values(fitted).sort((a, b) => a - b));
});

it("says that memory is not watched instead of that there is enough", () => {
  expect(stageOf({ stage: "none", used: 0, limit: 0, refused: 0 }).word).toBe("not watched");
  expect(stageOf({ stage: "none", used: 0.5, limit: 0.95, refused: 0 }).tone).toBe("good");
  expect(stageOf({ stage: "refuse", used: 0.97, limit: 0.95, refused: 3 }).tone).toBe("bad");
});
