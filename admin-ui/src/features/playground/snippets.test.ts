import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { bodyOf } from "./run";
import { type Ask, shellQuote, snippet } from "./snippets";

const ask: Ask = {
  system: "Be brief.",
  prompt: `It's "10 o'clock" $HOME \`id\` \\ done`,
  maxTokens: 8,
  temperature: 0,
  seed: 7,
};

it("is one word to a real shell, whatever a prompt holds", () => {
  for (const text of [ask.prompt, "'", "''", "a\nb", "$(id)", ""]) {
    expect(execFileSync("sh", ["-c", `printf %s ${shellQuote(text)}`]).toString()).toBe(text);
  }
});

it("makes the same call in every language, and holds no key", () => {
  const body = bodyOf(ask, "support:2");
  for (const language of ["curl", "python", "typescript"] as const) {
    const text = snippet(language, ask, "support:2", "http://localhost:8080", body);
    expect(text).toContain("support:2");
    expect(text).toContain("TENANTRY_API_KEY");
    expect(text).not.toContain("tny_");
  }
});
