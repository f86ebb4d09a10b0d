import { expect, it } from "vitest";
import { landing, lockedPlace, regionsOf } from "./nav";

const labels = (scopes: string[]) =>
  regionsOf(scopes).map((region) => region.places.map((place) => place.label));

it("shows nobody a door that is locked to them", () => {
  expect(labels(["inference"])).toEqual([["Playground"]]);
  expect(labels(["manage"])[0]).not.toContain("Playground");
  expect(labels(["inference", "manage"])).toHaveLength(1);
  expect(labels(["inference", "manage"])[0]).toHaveLength(9);
  expect(labels(["operator"])[0]).toEqual(["Engines", "Tenants", "Prices"]);
});

it("lands everybody on a page that they may see", () => {
  for (const scopes of [["inference"], ["manage"], ["inference", "manage"], ["operator"]])
    expect(lockedPlace(scopes, landing(scopes))).toBeUndefined();
  expect(landing(["operator", "inference", "manage"])).toBe("/operator/engines");
  expect(landing(["inference"])).toBe("/playground");
});

it("knows a page below a place, and no other whose name begins alike", () => {
  expect(lockedPlace(["inference"], "/adapters/support")?.label).toBe("Adapters");
  expect(lockedPlace(["inference"], "/adapterss")).toBeUndefined();
  expect(lockedPlace(["manage"], "/operator/tenants")?.label).toBe("Tenants");
});
