import { expect, it } from "vitest";
import openapi from "../../../openapi.json";
import { asked, GROUPS, kindsIn, LABELS, toggled, told } from "./kinds";

it("has a name and one place for every kind that the API tells", () => {
  const known = openapi.components.schemas.ActView.properties.kind.enum;
  expect(Object.keys(LABELS).sort()).toEqual([...known].sort());
  expect(GROUPS.flatMap(([, kinds]) => Object.keys(kinds)).length).toBe(known.length);
});

it("takes from the URL what is a kind, and nothing else", () => {
  expect(kindsIn(["key_revoked", "zz", 7, "key_revoked"])).toEqual(["key_revoked"]);
  for (const nonsense of [undefined, "key_revoked", [], ["zz"], 7, null])
    expect(kindsIn(nonsense)).toBe(undefined);
});

it("asks for everything, for some, or for all but sign-ins", () => {
  expect(asked({})).toBe(undefined);
  expect(asked({ only: ["key_created"], signIns: "hidden" })).toEqual(["key_created"]);
  const quiet = asked({ signIns: "hidden" });
  expect(quiet).not.toContain("signed_in");
  expect(quiet?.length).toBe(Object.keys(LABELS).length - 1);
});

it("puts kinds on and off, and none is all", () => {
  const one = toggled(undefined, "key_created", true);
  const two = toggled(one, "adapter_deleted", true);
  expect(two).toEqual(["adapter_deleted", "key_created"]);
  expect(toggled(two, "adapter_deleted", false)).toEqual(one);
  expect(toggled(one, "key_created", false)).toBe(undefined);
  expect([told({ only: one }), told({ only: two }), told({}), told({ signIns: "hidden" })]).toEqual([
    "Key created",
    "2 kinds",
    "All kinds",
    "All but sign-ins",
  ]);
});
