import { expect, it } from "vitest";
import type { VersionView } from "@/lib/api/schema";
import { aliasProblem, answersAs, nameProblem } from "./upload";

const second = { adapter: "support", model: "support:2", number: 2 } as VersionView;

it("tells by the aliases, not by the number, under which names a version answers", () => {
  expect(answersAs(second, [{ alias: "default", version: 2 }])).toContain("The name support answers with it");
  expect(answersAs(second, [{ alias: "default", version: 1 }])).toContain(
    "answers with version 1, until you",
  );
  expect(answersAs(second, [])).toContain("answers with nothing");
  const both = answersAs(second, [
    { alias: "default", version: 1 },
    { alias: "canary", version: 2 },
  ]);
  expect(both).toContain("support:2 and support@canary");
});

it("says what a name may be before anything is sent", () => {
  expect(nameProblem("support")).toBeNull();
  expect(nameProblem("Prod!")).toMatch(/^1 to 63/);
  expect(aliasProblem("Prod!", [])).toMatch(/^1 to 63/);
  expect(aliasProblem("default", [{ alias: "default" }])).toMatch(/already/);
  expect(aliasProblem("canary", [{ alias: "default" }])).toBeNull();
});
