import { expect, it } from "vitest";
import type { EngineRef, ResidentView } from "@/lib/api/schema";
import { standing } from "./standing";

const engine = (name: string, role: EngineRef["role"] = "both", state: EngineRef["state"] = "ready") => ({
  name,
  role,
  state,
});
const held = (...at: [string, string][]): ResidentView => ({
  version: 1,
  state: at.some(([, state]) => state === "resident") ? "resident" : (at[0]?.[1] ?? "absent"),
  engines: at.map(([name, state]) => ({ engine: name, state })),
});

it("is a word where there is one engine", () => {
  expect(standing([engine("engine")], held(["engine", "resident"])).text).toBe("on device");
  expect(standing([engine("engine")], held(["engine", "loading"])).text).toBe("loading");
  expect(standing([engine("engine")], held(["engine", "absent"])).text).toBe("waits for room");
  expect(standing([engine("engine")], undefined).text).toBe("on disk");
});

it("counts engines where there are several, and says how it stands on each", () => {
  const engines = [
    engine("a", "prefill"),
    engine("b", "decode"),
    engine("c", "decode"),
    engine("d", "decode"),
  ];
  const found = standing(engines, held(["b", "resident"], ["a", "loading"], ["d", "resident"]));
  expect(found.text).toBe("on 2 of 4 engines");
  expect(found.places.map((place) => [place.engine, place.role, place.state])).toEqual([
    ["a", "prefill", "loading"],
    ["b", "decode", "resident"],
    ["c", "decode", "disk"],
    ["d", "decode", "resident"],
  ]);
  expect(standing(engines, held(["c", "failed"])).text).toBe("failed to load on 1 of 4 engines");
  expect(standing(engines, undefined).text).toBe("on disk");
});

it("claims nothing of an engine that does not answer", () => {
  const away = engine("a", "both", "away");
  expect(standing([away], held(["a", "resident"])).text).toBe("not known");
  const two = standing([away, engine("b")], held(["a", "resident"]));
  expect([two.text, two.places[0]?.state]).toEqual(["on disk", "unknown"]);
});
