import { answer, api, changeHeaders, refused } from "@/lib/api/client";
import { ApiError, problemOf } from "@/lib/api/errors";
import type { UsageEventView } from "@/lib/api/schema";
import { sseData } from "@/lib/sse";
import { type Ask, messages } from "./snippets";

/** One answer as it grows. The time to the first token is this browser's own; all else is the server's. */
export interface Outcome {
  stage: "waiting" | "streaming" | "done" | "failed" | "stopped";
  text: string;
  finish: string | null;
  firstTokenS: number | null;
  /** Tokens per second, the ledger's. */
  speed: number | null;
  usage: TokenUsage | null;
  cost: string | null;
  version: string | null;
  error: string | null;
}

interface TokenUsage {
  prompt: number;
  cached: number;
  completion: number;
  accepted: number;
  rejected: number;
}

export const WAITING: Outcome = {
  stage: "waiting",
  text: "",
  finish: null,
  firstTokenS: null,
  speed: null,
  usage: null,
  cost: null,
  version: null,
  error: null,
};

interface Chunk {
  choices?: { delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: WireUsage | null;
  error?: unknown;
}

interface WireUsage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
  completion_tokens_details?: { accepted_prediction_tokens?: number; rejected_prediction_tokens?: number };
}

function usageOf(wire: WireUsage): TokenUsage {
  return {
    prompt: wire.prompt_tokens,
    completion: wire.completion_tokens,
    cached: wire.prompt_tokens_details?.cached_tokens ?? 0,
    accepted: wire.completion_tokens_details?.accepted_prediction_tokens ?? 0,
    rejected: wire.completion_tokens_details?.rejected_prediction_tokens ?? 0,
  };
}

/** tell: takes what is new, and says whether anybody still wants to know. */
export async function run(
  ask: Ask,
  model: string,
  tell: (change: Partial<Outcome>) => boolean,
  signal: AbortSignal,
): Promise<void> {
  let request: string | null = null;
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", ...changeHeaders() },
      body: JSON.stringify({ ...bodyOf(ask, model), stream: true, stream_options: { include_usage: true } }),
      signal,
    });
    if (!response.ok || !response.body) throw refused(response, await response.json().catch(() => null));
    request = response.headers.get("x-request-id");
    tell({ stage: "streaming", version: response.headers.get("x-tenantry-adapter-version") });
    let text = "";
    let first = false;
    for await (const data of sseData(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data) as Chunk;
      if (chunk.error) throw problemOf(response, chunk);
      const choice = chunk.choices?.[0];
      const piece = choice?.delta?.content;
      if (piece) {
        text += piece;
        tell(first ? { text } : { text, firstTokenS: since() });
        first = true;
      }
      if (choice?.finish_reason) tell({ finish: choice.finish_reason });
      if (chunk.usage) tell({ usage: usageOf(chunk.usage) });
    }
    tell({ stage: "done" });
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === "AbortError") tell({ stage: "stopped" });
    else {
      const unreachable = failure instanceof TypeError ? "The gateway does not answer." : "It failed.";
      tell({ stage: "failed", error: failure instanceof ApiError ? failure.message : unreachable });
    }
  }
  // Also of what was stopped or broke: what the engine had counted by then is charged.
  const event = await settled(request, () => tell({}));
  if (event) tell({ cost: event.cost, speed: speedOf(event) });
}

export function bodyOf(ask: Ask, model: string) {
  return {
    model,
    messages: messages(ask),
    max_tokens: ask.maxTokens,
    temperature: ask.temperature,
    ...(ask.seed === null ? {} : { seed: ask.seed }),
  };
}

/** Below it the clocks of two machines and a network say more about themselves than about the tokens. */
const TOO_SHORT_S = 0.02;

/** Tokens per second by the server's own two times, its queue and prompt included; null for what is too short to say. */
export function speedOf(
  event: Pick<UsageEventView, "admitted_at" | "occurred_at" | "completion_tokens">,
): number | null {
  const tookS = (Date.parse(event.occurred_at) - Date.parse(event.admitted_at)) / 1000;
  return tookS >= TOO_SHORT_S && event.completion_tokens > 1 ? event.completion_tokens / tookS : null;
}

/** What the request cost, from the ledger; it is there moments after the last token. Null where it may not be read. */
async function settled(requestId: string | null, wanted: () => boolean): Promise<UsageEventView | null> {
  if (!requestId) return null;
  for (let attempt = 0; attempt < 12 && wanted(); attempt += 1) {
    await new Promise((resolve) => setTimeout(resolve, 60 * 1.5 ** attempt));
    try {
      return await answer(
        api.GET("/api/v1/usage/events/{request_id}", { params: { path: { request_id: requestId } } }),
      );
    } catch (failure) {
      if (failure instanceof ApiError && failure.isForbidden) return null;
    }
  }
  return null;
}
