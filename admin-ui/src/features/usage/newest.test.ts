import { expect, it } from "vitest";
import { type Loaded, renewed } from "./newest";

type Page = { data: { request_id: string }[]; next: string };
const page = (...ids: string[]): Page => ({
  data: ids.map((id) => ({ request_id: id })),
  next: ids.at(-1) ?? "",
});
const two: Loaded<Page> = { pages: [page("6", "5"), page("4", "3")], pageParams: [undefined, "5"] };
const ids = (loaded: Loaded<Page>) => loaded.pages.flatMap((one) => one.data.map((row) => row.request_id));

it("puts in front what came since, and reads nothing else again", () => {
  const after = renewed(two, page("7", "6"));
  expect(ids(after)).toEqual(["7", "6", "5", "4", "3"]);
  expect(after.pages[0]?.next).toBe("5");
  expect(after.pages[1]).toBe(two.pages[1]);
  expect(ids(renewed(after, page("8", "7")))).toEqual(["8", "7", "6", "5", "4", "3"]);
});

it("begins anew where rows would be missing in between", () => {
  expect(renewed(two, page("9", "8"))).toEqual({ pages: [page("9", "8")], pageParams: [undefined] });
  const empty: Loaded<Page> = { pages: [page()], pageParams: [undefined] };
  expect(ids(renewed(empty, page("1")))).toEqual(["1"]);
});

it("stays the same object when nothing came", () => {
  expect(renewed(two, page("6", "5"))).toBe(two);
  expect(renewed(two, page())).toBe(two);
});
