/** The data of each server-sent event in a body, however the network cut it. */
export async function* sseData(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
    .getReader();
  let held = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      held += value ?? "";
      let cut = /\r?\n\r?\n/.exec(held);
      while (cut) {
        const data = dataOf(held.slice(0, cut.index));
        held = held.slice(cut.index + cut[0].length);
        if (data !== null) yield data;
        cut = /\r?\n\r?\n/.exec(held);
      }
      if (done) return;
    }
  } finally {
    reader.releaseLock();
  }
}

function dataOf(event: string): string | null {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.length > 0 ? lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n") : null;
}
