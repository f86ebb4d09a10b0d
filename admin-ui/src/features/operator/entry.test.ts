import { expect, it } from "vitest";
import { balanceWith, onceOnly, unready } from "./entry";

it("asks for an amount, and for a reason of what corrects", () => {
  expect(unready({ kind: "grant", amount: " ", note: "" })?.field).toBe("amount");
  expect(unready({ kind: "adjust", amount: "-1", note: " " })?.field).toBe("note");
  expect(unready({ kind: "grant", amount: "1", note: "" })).toBeNull();
  expect(unready({ kind: "adjust", amount: "-1", note: "twice billed" })).toBeNull();
});

it("tells the balance beforehand, for amounts alone", () => {
  expect(Number(balanceWith("12.50", "-2.5"))).toBe(10);
  expect(Number(balanceWith("-0.1", " 0.2 "))).toBe(0.1);
  for (const nothing of ["", "-", "1e3", "five", "1,5", "+1"]) expect(balanceWith("1", nothing)).toBeNull();
});

it("never makes one key twice", () => {
  expect(new Set(Array.from({ length: 100 }, onceOnly)).size).toBe(100);
});
