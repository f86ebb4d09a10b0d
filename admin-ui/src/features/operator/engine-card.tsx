import { Chip, StateChip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import type { EngineReport } from "@/lib/api/schema";
import { brief, bytes, count, milliseconds } from "@/lib/format";
import { Shares } from "./shares";

/** One engine: whether it answers, what waits, and what its memory holds. */
export function EngineCard({ engine }: { engine: EngineReport }) {
  const facts: [string, string][] = [
    ["Running", count(engine.running)],
    ["Waiting", count(engine.waiting)],
    ["Mean step", engine.steps > 0 ? milliseconds(engine.step_seconds / engine.steps) : "–"],
    ["Steps", count(engine.steps)],
    ["Put back", count(engine.preemptions)],
    ["Rerouted", count(engine.rerouted)],
    ["Tenants waiting", count(engine.tenants_waiting ?? 0)],
    ["KV pages evicted", count(engine.pages_evicted ?? 0)],
    ["Adapters evicted", count(engine.adapters_evicted ?? 0)],
  ];
  return (
    <Panel
      title={engine.name}
      aside={
        <span className="flex gap-1.5">
          <Chip>{engine.role === "both" ? "prefill and decode" : engine.role}</Chip>
          <StateChip state={engine.state} />
        </span>
      }
    >
      <dl className="grid grid-cols-3 gap-x-6 gap-y-3 lg:grid-cols-5">
        {facts.map(([label, value]) => (
          <div key={label}>
            <dt className="text-xs text-ink-soft">{label}</dt>
            <dd className="text-lg font-semibold tabular-nums">{value}</dd>
          </div>
        ))}
      </dl>
      <MemoryMap engine={engine} />
      <Shares engine={engine} />
    </Panel>
  );
}

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

function MemoryMap({ engine }: { engine: EngineReport }) {
  const parts = partsOf(engine);
  const whole = parts.reduce((all, part) => all + part.bytes, 0);
  const adapters = [...engine.adapters].sort((a, b) => b.bytes - a.bytes);
  return (
    <div className="mt-5 grid gap-4">
      <div>
        <h3 className="mb-2 text-xs text-ink-soft">
          Memory: {count(engine.pages.total - engine.pages.free)} of {count(engine.pages.total)} pages hold
          something
        </h3>
        {whole > 0 && (
          <>
            <div aria-hidden className="flex h-5 gap-px overflow-hidden rounded-md border border-line">
              {parts.map((part) => (
                <div
                  key={part.label}
                  style={{ width: `${(part.bytes / whole) * 100}%`, background: part.colour }}
                />
              ))}
            </div>
            <ul className="mt-2 flex flex-wrap gap-x-5 gap-y-1 text-xs">
              {parts.map((part) => (
                <li key={part.label} className="flex items-center gap-1.5">
                  <span
                    aria-hidden
                    className="size-2.5 rounded-sm border border-line"
                    style={{ background: part.colour }}
                  />
                  {part.label} <span className="text-ink-soft tabular-nums">{bytes(part.bytes)}</span>
                </li>
              ))}
            </ul>
          </>
        )}
      </div>
      {adapters.length > 0 && (
        <div>
          <h3 className="mb-2 text-xs text-ink-soft">Adapters it holds</h3>
          <ul className="flex flex-wrap gap-2">
            {adapters.slice(0, 24).map((one) => (
              <li
                key={one.digest}
                className="flex items-center gap-2 rounded-md border border-line px-2 py-1 text-xs"
              >
                <span className="font-mono" title={one.digest}>
                  {brief(one.digest, 10)}
                </span>
                <span className="text-ink-soft tabular-nums">{bytes(one.bytes)}</span>
                <StateChip state={one.state} />
                {one.users > 0 && <span className="tabular-nums">{one.users} in use</span>}
              </li>
            ))}
            {adapters.length > 24 && (
              <li className="self-center text-xs text-ink-soft">and {adapters.length - 24} more</li>
            )}
          </ul>
        </div>
      )}
    </div>
  );
}
