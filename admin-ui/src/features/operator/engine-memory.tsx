import type { ColumnDef } from "@tanstack/react-table";
import { CheckCircle2, CircleSlash, OctagonAlert, TriangleAlert } from "lucide-react";
import { DataTable } from "@/components/data-table/data-table";
import { Chip } from "@/components/ui/chip";
import { Meter } from "@/components/ui/meter";
import type { EngineReport, TierView } from "@/lib/api/schema";
import { bytes, count, percent } from "@/lib/format";
import { partsOf, stageOf } from "./engine";
import { Part } from "./facts";

export function MemoryMap({ engine }: { engine: EngineReport }) {
  const parts = partsOf(engine);
  const whole = parts.reduce((all, part) => all + part.bytes, 0);
  const { total, free } = engine.pages;
  return (
    <Part title={`Memory map: ${count(total - free)} of ${count(total)} pages hold something`}>
      {whole > 0 ? (
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
      ) : (
        <p className="text-xs text-ink-soft">Nothing is held yet.</p>
      )}
    </Part>
  );
}

const ICONS = { good: CheckCircle2, warn: TriangleAlert, bad: OctagonAlert, plain: CircleSlash };

/** How full the host memory is, and how far the engine has stepped back for that. */
export function HostMemory({ engine }: { engine: EngineReport }) {
  const memory = engine.host_memory;
  const { tone, word, means } = stageOf(memory);
  return (
    <Part
      title="Host memory"
      aside={
        <Chip tone={tone} icon={ICONS[tone]}>
          {word}
        </Chip>
      }
    >
      {memory.limit > 0 && memory.used > 0 && (
        <>
          <Meter
            value={memory.used}
            max={memory.limit}
            label={`Host memory used by ${engine.name}’s machine`}
          />
          <p className="mt-1.5 text-sm tabular-nums">
            {percent(memory.used)} used; the engine steps back from {percent(memory.limit)}
          </p>
        </>
      )}
      <p className="mt-1 text-xs text-ink-soft">
        {means}
        {memory.refused > 0 && ` Refused for want of it: ${count(memory.refused)}.`}
      </p>
    </Part>
  );
}

const TIERS: Record<TierView["tier"], string> = { device: "Device", host: "Host memory", disk: "Disk" };

function columns(prompt: number): ColumnDef<TierView, unknown>[] {
  return [
    { header: "Tier", cell: ({ row }) => <span className="font-medium">{TIERS[row.original.tier]}</span> },
    {
      header: "Pages",
      cell: ({ row: { original: t } }) =>
        t.pages_total > 0 ? (
          <span className="flex min-w-24 flex-col gap-1">
            <span className="tabular-nums">
              {count(t.pages)} <span className="text-ink-soft">of {count(t.pages_total)}</span>
            </span>
            <Meter value={t.pages} max={t.pages_total} label={`${TIERS[t.tier]}: pages used`} plain />
          </span>
        ) : (
          <span className="text-ink-soft">off</span>
        ),
    },
    {
      header: "Bytes",
      meta: { numeric: true, wideOnly: true },
      cell: ({ row }) => bytes(row.original.bytes),
    },
    {
      header: () => (
        <abbr title="Prompt tokens whose KV was found in this tier" className="no-underline">
          Tokens found
        </abbr>
      ),
      id: "found",
      meta: { numeric: true },
      cell: ({ row: { original: t } }) => (
        <>
          {count(t.found_tokens)}
          {prompt > 0 && <span className="ml-1.5 text-ink-soft">{percent(t.found_tokens / prompt)}</span>}
        </>
      ),
    },
    {
      header: () => (
        <abbr title="Pages let go for want of room" className="no-underline">
          Evicted
        </abbr>
      ),
      id: "evicted",
      meta: { numeric: true, wideOnly: true },
      cell: ({ row }) => count(row.original.evictions),
    },
    {
      header: () => (
        <abbr
          title="Pages let go for want of host memory, or that the disk refused or gave back damaged"
          className="no-underline"
        >
          Lost
        </abbr>
      ),
      id: "lost",
      meta: { numeric: true, wideOnly: true },
      cell: ({ row: { original: t } }) => count(t.shed + t.bad + t.failures),
    },
  ];
}

/** KV by where it lies, with what was found there. */
export function Tiers({ engine }: { engine: EngineReport }) {
  return (
    <Part
      title={`KV by tier, since the engine started: ${count(engine.cached_tokens)} of ${count(engine.prompt_tokens)} prompt tokens were found`}
    >
      <div className="-mx-4">
        <DataTable
          caption={`KV tiers of ${engine.name}`}
          columns={columns(engine.prompt_tokens)}
          rows={engine.tiers}
          rowKey={(tier) => tier.tier}
        />
      </div>
    </Part>
  );
}
