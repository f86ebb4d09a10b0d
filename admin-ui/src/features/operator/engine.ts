import type { EngineReport, HostMemoryView, StepTimes } from "@/lib/api/schema";
import { milliseconds } from "@/lib/format";

export interface Part {
  label: string;
  bytes: number;
  colour: string;
}

/** What the pages and the adapters hold; pages that nobody holds are free. */
export function partsOf(engine: EngineReport): Part[] {
  const { pages, adapters } = engine;
  const held = pages.live_bytes + pages.cached_bytes;
  const heldPages = pages.total - pages.free;
  const page = heldPages > 0 ? held / heldPages : 0;
  const parts = [
    { label: "KV in use", bytes: pages.live_bytes, colour: "var(--chart-1)" },
    { label: "KV kept for its prefix", bytes: pages.cached_bytes, colour: "var(--chart-2)" },
    { label: "adapters", bytes: adapters.reduce((all, one) => all + one.bytes, 0), colour: "var(--chart-3)" },
    { label: "free pages", bytes: Math.round(page * pages.free), colour: "var(--raised)" },
  ];
  return parts.filter((part) => part.bytes > 0);
}

/** A short time: steps take from microseconds to seconds. */
export function brieflyTimed(seconds: number): string {
  if (seconds >= 0.1) return milliseconds(seconds);
  if (seconds >= 0.001) return `${(seconds * 1e3).toFixed(1)} ms`;
  return seconds > 0 && seconds < 5e-7 ? "<1 µs" : `${Math.round(seconds * 1e6)} µs`;
}

/** What a step costs by its fit, in the order in which one would add it up. */
export function costsOf(times: StepTimes): [string, number][] {
  return [
    ["A step by itself", times.step],
    ["Each row that draws a token", times.row],
    ["Each prompt token", times.prompt_token],
    ["1,000 positions in the rows’ pages", times.kilo_attended],
    ["1,000 positions looked at by prompt tokens", times.kilo_prompt_attended],
    ["A row’s first guess", times.first_guess],
    ["Each guess judged", times.guess],
  ];
}

interface Stage {
  tone: "good" | "warn" | "bad" | "plain";
  word: string;
  means: string;
}

const STAGES: Record<HostMemoryView["stage"], Stage> = {
  none: { tone: "good", word: "enough", means: "Nothing is given up." },
  shed_cache: {
    tone: "warn",
    word: "keeps no KV here",
    means: "KV that leaves the device is not kept in host memory, and what was kept is let go.",
  },
  shed_queue: {
    tone: "bad",
    word: "refuses who waits",
    means: "At every reading above the limit half of the queue is refused; what runs goes on.",
  },
  refuse: {
    tone: "bad",
    word: "refuses who comes",
    means: "New requests get a 503 with Retry-After, half of the queue is refused; what runs goes on.",
  },
};

/** How far an engine has stepped back for want of host memory, in words. */
export function stageOf(memory: HostMemoryView): Stage {
  if (memory.limit === 0) {
    return { tone: "plain", word: "not watched", means: "It was started with --memory-pressure 0." };
  }
  return STAGES[memory.stage];
}
