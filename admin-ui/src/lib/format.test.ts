import { describe, expect, it } from "vitest";
import {
  ago,
  brief,
  bytes,
  count,
  inCurrency,
  milliseconds,
  money,
  percent,
  price,
  setCurrency,
  share,
} from "./format";

describe("money", () => {
  it.each([
    ["0.00", "$0"],
    ["12.345", "$12.35"],
    ["0.0123", "$0.0123"],
    ["0.000045", "$0.000045"],
    ["1234.5", "$1,234.50"],
    ["-0.0000345", "-$0.0000345"],
    ["0.000000001", "$0.000000001"],
  ])("%s is told as %s", (text, told) => expect(money(text)).toBe(told));

  it("tells what is no number as it came", () => expect(money("?")).toBe("?"));

  it("names the installation's currency, with as many digits as that has", () => {
    setCurrency("EUR");
    expect([money("12.345"), money("0.0123"), inCurrency("cost")]).toEqual([
      "€12.35",
      "€0.0123",
      "cost (EUR)",
    ]);
    setCurrency("JPY");
    expect([money("1234.5"), money("0.05")]).toEqual(["¥1,235", "¥0.05"]);
    setCurrency("CHF");
    expect(money("3")).toBe("CHF\u00a03.00");
    setCurrency("USD");
  });

  it("tells a price to its last digit", () => {
    expect([price("0.5"), price("0.0000001"), price("1500")]).toEqual(["$0.5", "$0.0000001", "$1,500"]);
    expect(price("much")).toBe("much");
  });
});

describe("percent", () => {
  it("never rounds something to nothing, nor nearly all to all", () => {
    expect(percent(0.0001)).toBe("<0.1%");
    expect(percent(0.9999)).toBe(">99.9%");
    expect(percent(0)).toBe("0%");
    expect(percent(1)).toBe("100%");
  });

  it("has a word for a share of nothing", () => expect(percent(share(0, 0))).toBe("–"));
});

describe("sizes and times", () => {
  it("counts bytes in powers of two", () => {
    expect(bytes(1023)).toBe("1,023 B");
    expect(bytes(1536)).toBe("1.5 KiB");
    expect(bytes(null)).toBe("–");
  });

  it("tells seconds in the unit people read", () => {
    expect(milliseconds(0.0004)).toBe("<1 ms");
    expect(milliseconds(0.0351)).toBe("35 ms");
    expect(milliseconds(2.5)).toBe("2.50 s");
  });

  it("tells how long ago, and how long until", () => {
    const now = Date.parse("2026-01-01T12:00:00Z");
    expect(ago("2026-01-01T11:00:00Z", now)).toBe("1 h ago");
    expect(ago("2026-01-01T14:00:00Z", now)).toBe("in 2 h");
    expect(ago(null, now)).toBe("never");
  });

  it("counts exactly until it would be unreadable", () => {
    expect(count(99_999)).toBe("99,999");
    expect(count(1_234_567)).toBe("1.2M");
  });

  it("keeps an id's kind in its brief form", () => expect(brief("req_0199abcdef", 4)).toBe("req_0199"));
});
