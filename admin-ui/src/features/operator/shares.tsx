import type { ColumnDef } from "@tanstack/react-table";
import { DataTable } from "@/components/data-table/data-table";
import { Meter } from "@/components/ui/meter";
import type { EngineReport, TenantShareView } from "@/lib/api/schema";
import { count, percent } from "@/lib/format";
import { Part } from "./facts";

const COLUMNS: ColumnDef<TenantShareView, unknown>[] = [
  {
    header: "Tenant",
    cell: ({ row }) => (
      <span className="block min-w-24 font-medium sm:min-w-32 [overflow-wrap:anywhere]">
        {row.original.tenant}
      </span>
    ),
  },
  { header: "Waiting", meta: { numeric: true }, cell: ({ row }) => count(row.original.waiting) },
  { header: "Running", meta: { numeric: true }, cell: ({ row }) => count(row.original.running) },
  {
    header: () => (
      <>
        Share<span className="max-sm:sr-only"> of the work</span>
      </>
    ),
    id: "share",
    cell: ({ row: { original: s } }) => (
      <span className="flex items-center gap-3 sm:min-w-36">
        <span className="w-12 text-right tabular-nums">{percent(s.share)}</span>
        <span className="w-full max-sm:hidden">
          <Meter value={s.share} max={1} label={`${s.tenant}: share of the work`} plain />
        </span>
      </span>
    ),
  },
  {
    header: () => (
      <abbr title="Virtual tokens: a prompt token computed is 1, a token drawn 2" className="no-underline">
        Work
      </abbr>
    ),
    id: "work",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row }) => count(row.original.work),
  },
  {
    header: () => (
      <abbr
        title="Virtual tokens beyond where the last turn ended; the lowest of those who wait is next"
        className="no-underline"
      >
        Ahead by
      </abbr>
    ),
    id: "ahead",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row }) => count(row.original.ahead),
  },
  { header: "Weight", meta: { numeric: true, wideOnly: true }, cell: ({ row }) => row.original.weight },
];

/** Whose work the engine does: its queue and its turns by tenant, those with most to do first. */
export function Shares({ engine }: { engine: EngineReport }) {
  const { tenants } = engine;
  if (tenants.length === 0) return null;
  return (
    <Part
      title={`Queue and fairness by tenant, since the engine started${tenants.length >= 16 ? " (the 16 with most to do)" : ""}`}
    >
      <div className="-mx-4">
        <DataTable
          caption={`Queue and fairness on ${engine.name}`}
          columns={COLUMNS}
          rows={tenants}
          rowKey={(share) => share.tenant}
        />
      </div>
    </Part>
  );
}
