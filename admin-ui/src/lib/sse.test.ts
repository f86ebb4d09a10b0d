import { expect, it } from "vitest";
import { sseData } from "./sse";

function body(...chunks: Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

async function all(stream: ReadableStream<Uint8Array>): Promise<string[]> {
  const found: string[] = [];
  for await (const data of sseData(stream)) found.push(data);
  return found;
}

it("gives the same events however the network cuts them, inside a letter too", async () => {
  const bytes = new TextEncoder().encode(
    'data: {"t":"Grüße 🙂"}\n\n: a comment\n\ndata: one\ndata: two\r\n\r\ndata: [DONE]\n\n',
  );
  const whole = await all(body(bytes));
  expect(whole).toEqual(['{"t":"Grüße 🙂"}', "one\ntwo", "[DONE]"]);
  for (let cut = 1; cut < bytes.length; cut += 1) {
    expect(await all(body(bytes.slice(0, cut), bytes.slice(cut)))).toEqual(whole);
  }
});

it("gives no event that was cut off", async () => {
  expect(await all(body(new TextEncoder().encode("data: whole\n\ndata: ha")))).toEqual(["whole"]);
});
