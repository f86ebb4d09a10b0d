import { expect, it } from "vitest";
import { beside, changed, type PaneOf, panesOf, without } from "./panes";
import { speedOf } from "./run";

const models = (panes: readonly PaneOf[]) => panes.map((pane) => pane.model);
const ids = (panes: readonly PaneOf[]) => panes.map((pane) => pane.id);

it("keeps a pane itself when one before it goes", () => {
  const panes = panesOf([], ["a", "a", "b"]);
  const [, second, third] = panes;
  const left = without(panes, panes[0]?.id ?? 0);
  expect(left).toEqual([second, third]);
  expect(panesOf(left, models(left))).toBe(left);
});

it("makes another pane of another model, and of one beside, and gives no id twice", () => {
  const panes = panesOf([], ["a", "b"]);
  const next = beside(changed(panes, panes[0]?.id ?? 0, "c"), "b");
  expect(models(next)).toEqual(["c", "b", "b"]);
  expect(next[1]).toBe(panes[1]);
  expect(new Set([...ids(panes), ...ids(next)]).size).toBe(4);
});

it("follows the URL: back to two panes where one had been taken away", () => {
  const panes = panesOf([], ["a", "b"]);
  const left = without(panes, panes[0]?.id ?? 0);
  const again = panesOf(left, ["a", "b"]);
  expect(models(again)).toEqual(["a", "b"]);
  expect(again[1]).toBe(panes[1]);
  expect(again[0]?.id).not.toBe(panes[0]?.id);
});

it("tells a speed by the server's clock, and none of what was over at once", () => {
  const event = (ms: number, tokens: number) => ({
    admitted_at: "2026-11-21T10:00:00.000Z",
    occurred_at: new Date(Date.parse("2026-11-21T10:00:00.000Z") + ms).toISOString(),
    completion_tokens: tokens,
  });
  expect(speedOf(event(500, 50))).toBe(100);
  expect(speedOf(event(3, 50))).toBeNull();
  expect(speedOf(event(500, 1))).toBeNull();
});
