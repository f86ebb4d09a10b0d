export interface Ask {
  system: string;
  prompt: string;
  maxTokens: number;
  temperature: number;
  seed: number | null;
}

export type Language = "curl" | "python" | "typescript";

/** The same call for a terminal or a program. The key is never put in: the page does not have it. */
export function snippet(language: Language, ask: Ask, model: string, origin: string, body: object): string {
  switch (language) {
    case "curl":
      return [
        `curl ${origin}/v1/chat/completions \\`,
        `  -H "Authorization: Bearer $TENANTRY_API_KEY" \\`,
        `  -H "Content-Type: application/json" \\`,
        `  -d ${shellQuote(JSON.stringify(body, null, 2))}`,
      ].join("\n");
    case "python":
      return [
        "import os",
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=os.environ["TENANTRY_API_KEY"])`,
        "answer = client.chat.completions.create(",
        `    model=${JSON.stringify(model)},`,
        "    messages=[",
        ...messages(ask).map(
          (one) =>
            `        {"role": ${JSON.stringify(one.role)}, "content": ${JSON.stringify(one.content)}},`,
        ),
        "    ],",
        `    max_tokens=${ask.maxTokens},`,
        `    temperature=${ask.temperature},`,
        ...(ask.seed === null ? [] : [`    seed=${ask.seed},`]),
        ")",
        "print(answer.choices[0].message.content)",
      ].join("\n");
    case "typescript":
      return [
        'import OpenAI from "openai";',
        "",
        `const client = new OpenAI({ baseURL: ${JSON.stringify(`${origin}/v1`)}, apiKey: process.env.TENANTRY_API_KEY });`,
        `const answer = await client.chat.completions.create(${JSON.stringify(body, null, 2)});`,
        "console.log(answer.choices[0].message.content);",
      ].join("\n");
  }
}

/** What is said, as the API takes it. */
export function messages(ask: Ask) {
  const user = { role: "user", content: ask.prompt };
  return ask.system ? [{ role: "system", content: ask.system }, user] : [user];
}

/** One word to a POSIX shell, whatever it holds. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'"'"'`)}'`;
}
