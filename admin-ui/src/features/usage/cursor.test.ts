import { expect, it } from "vitest";
import { type Cursor, moved, pointed } from "./cursor";
import type { Stack } from "./stack";

const group = (key: string) => ({ key, id: key, label: key, rest: false, total: 1 });
const stack: Stack = {
  groups: [group("a"), group("b"), group("c")],
  rows: [
    { at: 1, a: 5, b: 0, c: 2 },
    { at: 2, a: 0, b: 0, c: 0 },
    { at: 3, a: 0, b: 4, c: 1 },
  ],
};
const go = (...keys: string[]) => keys.reduce<Cursor | null>((at, key) => moved(stack, at, key) ?? at, null);

it("goes from bar to bar over what is empty, and no further than the ends", () => {
  expect(go("ArrowRight")).toEqual({ at: 1, key: "a" });
  expect(go("ArrowRight", "ArrowRight")).toEqual({ at: 3, key: "b" });
  expect(go("ArrowRight", "ArrowRight", "ArrowRight")).toEqual({ at: 3, key: "b" });
  expect(go("ArrowLeft")?.at).toBe(3);
  expect(go("End", "ArrowLeft", "ArrowLeft")?.at).toBe(1);
  expect(go("Home")?.at).toBe(1);
});

it("goes up and down within a bar, and keeps its group where the next bar has it", () => {
  expect(go("Home", "ArrowUp")).toEqual({ at: 1, key: "c" });
  expect(go("Home", "ArrowUp", "ArrowUp", "ArrowRight")).toEqual({ at: 3, key: "c" });
  expect(go("Home", "ArrowUp", "ArrowDown", "ArrowDown")).toEqual({ at: 1, key: "a" });
});

it("leaves other keys alone, and a bar that is gone", () => {
  expect(moved(stack, go("Home"), "Enter")).toBe(null);
  expect(moved(stack, null, "ArrowUp")).toBe(null);
  expect(pointed(stack, { at: 2, key: "a" })).toBe(null);
  expect(pointed(stack, { at: 9, key: "a" })).toBe(null);
  expect(moved({ groups: [], rows: [] }, null, "ArrowRight")).toBe(null);
});
