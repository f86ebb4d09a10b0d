import { expect, it } from "vitest";
import { csv } from "./csv";

it("quotes what would break a row", () => {
  expect(
    csv(
      ["a", "b"],
      [
        ['say "hi"', "x,y"],
        ["line\nbreak", 3],
      ],
    ),
  ).toBe('a,b\r\n"say ""hi""","x,y"\r\n"line\nbreak",3');
});

it("never lets a name become a formula in someone's spreadsheet", () => {
  for (const name of ["=1+1", "+cmd", "@SUM(A1)", "-2+3", "\tx"]) {
    expect(csv(["n"], [[name]])).toContain(`'${name}`);
  }
});

it("leaves negative numbers numbers, and nothing empty", () => {
  expect(csv(["n", "m"], [["-0.5", null]])).toBe("n,m\r\n-0.5,");
});
