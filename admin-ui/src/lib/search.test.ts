import { expect, it } from "vitest";
import { day, inside, moment, oneOf, texts } from "./search";

it("takes no moment that a Date could not hold", () => {
  expect(moment(1_790_000_000_000)).toBe(1_790_000_000_000);
  for (const wrong of [8.64e15 + 1, 0.5, "1", null, Number.NaN]) expect(moment(wrong)).toBeUndefined();
});

it("takes days of the calendar and choices that exist", () => {
  expect(day("2026-11-01")).toBe("2026-11-01");
  for (const wrong of ["2026-13-01", "soon", 20_261_101, "2026-11-1"]) expect(day(wrong)).toBeUndefined();
  expect(oneOf("foo", ["ready"])).toBeUndefined();
});

it("takes the texts of a list, and of anything else nothing", () => {
  expect(texts(["a", 1, "", "b", "c"], 2)).toEqual(["a", "b"]);
  for (const wrong of ["ab", 7, {}, [], [1]]) expect(texts(wrong, 4)).toBeUndefined();
});

it("leads a sign-in nowhere but into the console", () => {
  expect(inside("/admin/usage?by=key")).toBe("/admin/usage?by=key");
  for (const wrong of ["https://elsewhere", "//elsewhere", "/administrate", "javascript:1", "/"])
    expect(inside(wrong)).toBeUndefined();
});
