import type { ColumnDef } from "@tanstack/react-table";
import { useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { StandingChip } from "@/features/adapters/residency";
import { word } from "@/features/adapters/standing";
import type { EngineReport, FleetViewsAdapterView } from "@/lib/api/schema";
import { brief, bytes, count } from "@/lib/format";
import { Part } from "./facts";

const FEW = 6;

const COLUMNS: ColumnDef<FleetViewsAdapterView, unknown>[] = [
  { header: "Adapter", cell: ({ row }) => <Named adapter={row.original} /> },
  {
    header: "State",
    cell: ({ row: { original: a } }) => (
      <span className="flex flex-wrap items-center gap-1">
        <StandingChip state={a.state} text={word(a.state)} />
        {a.users > 0 && (
          <span className="text-xs whitespace-nowrap tabular-nums">{count(a.users)} in use</span>
        )}
      </span>
    ),
  },
  { header: "Size", meta: { numeric: true }, cell: ({ row }) => bytes(row.original.bytes) },
];

/** Whose it is: the same weights may be several tenants'. */
function Named({ adapter }: { adapter: FleetViewsAdapterView }) {
  const { versions = [], known = 0, digest } = adapter;
  return (
    <div className="min-w-0">
      {versions.map((one) => (
        <div key={`${one.tenant} ${one.model}`} className="flex flex-wrap items-center gap-x-1.5">
          <span className="[overflow-wrap:anywhere]">
            <span className="text-ink-soft">{one.tenant} / </span>
            <span className="font-medium">{one.model}</span>
          </span>
          {one.state !== "ready" && <Chip>{one.state}</Chip>}
        </div>
      ))}
      {versions.length === 0 && <div className="text-ink-soft">of no adapter that is known here</div>}
      <div className="font-mono text-xs text-ink-soft" title={digest}>
        {brief(digest, 12)}
        {known > versions.length && (
          <span className="ml-2 font-sans">and {count(known - versions.length)} more with these weights</span>
        )}
      </div>
    </div>
  );
}

/** Those in use first, then the largest. */
export function Adapters({ engine }: { engine: EngineReport }) {
  const [all, setAll] = useState(false);
  const sorted = [...engine.adapters].sort((a, b) => b.users - a.users || b.bytes - a.bytes);
  const held = sorted.reduce((sum, one) => sum + one.bytes, 0);
  return (
    <Part
      title={`Adapters: ${count(sorted.length)}, ${bytes(held)} of at most ${bytes(engine.adapter_bytes_limit)}`}
    >
      {sorted.length === 0 ? (
        <p className="text-xs text-ink-soft">No adapter was asked for yet.</p>
      ) : (
        <div className="-mx-4">
          <DataTable
            caption={`Adapters that ${engine.name} holds`}
            columns={COLUMNS}
            rows={all ? sorted : sorted.slice(0, FEW)}
            rowKey={(one) => one.digest}
            footer={
              sorted.length > FEW && (
                <div className="px-4 pt-2">
                  <Button size="sm" aria-expanded={all} onClick={() => setAll((on) => !on)}>
                    {all ? "Show fewer" : `Show all ${count(sorted.length)}`}
                  </Button>
                </div>
              )
            }
          />
        </div>
      )}
    </Part>
  );
}
