import { expect, it } from "vitest";
import { endable, grantable } from "@/features/team/team";
import { mayEnd } from "./scopes";

const ADMIN = ["inference", "manage"];

it("offers to give what one has oneself, and no more", () => {
  expect(grantable(ADMIN).map((role) => role.value)).toEqual(["member", "manager", "admin"]);
  expect(grantable(["manage"]).map((role) => role.value)).toEqual(["manager"]);
  expect(grantable(["inference"]).map((role) => role.value)).toEqual(["member"]);
  expect(grantable(["operator"])).toHaveLength(3);
});

it("ends whom one does not stand below", () => {
  expect(endable(["manage"], "admin")).toBe(false);
  expect(endable(["manage"], "member")).toBe(true);
  expect(endable(["manage"], "manager")).toBe(true);
  expect(endable(ADMIN, "admin")).toBe(true);
  expect(mayEnd(["operator"], [...ADMIN, "operator"])).toBe(true);
});
