import { expect, it } from "vitest";
import { problemOf } from "@/lib/api/errors";
import { linesOf } from "./impact";
import { problemsIn } from "./report";
import { nameProblem, pickFiles } from "./upload";

const file = (name: string) => new File(["x"], name);

it("sends the two files or one zip, and says before a byte is sent what is missing", () => {
  const both = [file("adapter_model.safetensors"), file("adapter_config.json"), file("README.md")];
  expect(pickFiles(both)).toHaveProperty("files.length", 2);
  expect(pickFiles([file("a.zip")])).toHaveProperty("files.length", 1);
  expect(pickFiles([file("a.zip"), ...both])).toHaveProperty("why");
  expect(pickFiles([file("adapter_config.json")])).toEqual({ why: "adapter_model.safetensors is missing." });
  expect(pickFiles([file("adapter_config.json"), file("adapter_model.bin")])).toHaveProperty(
    "why",
    expect.stringContaining("may carry code"),
  );
});

it("knows a name by the registry's own rule", () => {
  expect(nameProblem("support.v2_eu-1")).toBeNull();
  for (const name of ["", "Support", "<script>", "-x", "a".repeat(64)])
    expect(nameProblem(name)).not.toBeNull();
});

it("reads a refusal's problems, and survives an answer that is none of ours", () => {
  const error = problemOf(
    { status: 422 },
    { error: { code: "x", message: "no", problems: [{ code: "c", subject: "t", message: "m" }, 1] } },
  );
  expect(error.problems).toEqual([{ code: "c", subject: "t", message: "m" }]);
  expect(problemOf({ status: 502 }, "<html>").message).toBe("The gateway answered 502.");
  expect(problemsIn({ problems: "?" }, "problems")).toEqual([]);
});

it("counts what an act hits in words, and leaves out what it does not", () => {
  expect(
    linesOf({
      requests_in_flight: 1,
      keys: 0,
      adapters: 1,
      sessions: 3,
      aliases: ["default", "eu"],
      browser_sessions: 2,
      object: "impact",
    }),
  ).toEqual(["1 request in flight now", "3 sessions", "2 aliases: default, eu", "2 browsers signed in"]);
});
