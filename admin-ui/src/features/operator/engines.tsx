import { useQuery } from "@tanstack/react-query";
import type { ColumnDef } from "@tanstack/react-table";
import { CheckCircle2, XCircle } from "lucide-react";
import { DataTable } from "@/components/data-table/data-table";
import { PageHeader } from "@/components/layout/page";
import { Chip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { answer, api } from "@/lib/api/client";
import type { OverviewView, SpeculationView } from "@/lib/api/schema";
import { ago, count, milliseconds, money, percent, share } from "@/lib/format";
import { EngineCard } from "./engine-card";

export function EnginesPage() {
  const overview = useQuery({
    queryKey: ["overview", "all"],
    queryFn: () => answer(api.GET("/api/v1/overview/all")),
    refetchInterval: 3_000,
  });
  const engines = useQuery({
    queryKey: ["engines"],
    queryFn: async () => (await answer(api.GET("/api/v1/engines"))).data,
    refetchInterval: 3_000,
  });
  const guesses = useQuery({
    queryKey: ["speculation", "all"],
    queryFn: () => answer(api.GET("/api/v1/speculation/all")),
    refetchInterval: 10_000,
  });
  return (
    <>
      <PageHeader
        title="Engines"
        description="All tenants together: what runs, what memory holds, and how often guesses stand."
      />
      <div className="grid gap-4">
        <View query={overview} rows={4}>
          {(all) => <Whole all={all} />}
        </View>
        <View query={engines} rows={5}>
          {(found) => found.map((engine) => <EngineCard key={engine.name} engine={engine} />)}
        </View>
        <Panel title="Speculation since the engine started" flush>
          <View query={guesses}>
            {(report) => (
              <DataTable
                caption="Speculation by tenant and model"
                columns={GUESSES}
                rows={report.data}
                rowKey={(row) => `${row.tenant} ${row.model} ${row.digest}`}
                empty={
                  <Empty title="No request took guesses yet">
                    Serve with <code className="font-mono text-xs">--speculate</code> to let the engine guess
                    ahead.
                  </Empty>
                }
              />
            )}
          </View>
        </Panel>
      </div>
    </>
  );
}

function Whole({ all }: { all: OverviewView }) {
  const { pace, day } = all;
  const cells: [string, string][] = [
    ["Running", count(pace.running)],
    ["Requests a second", pace.requests_per_second.toFixed(2)],
    ["Tokens a second", count(Math.round(pace.tokens_per_second))],
    ["First token p50", milliseconds(pace.first_token_p50)],
    ["First token p95", milliseconds(pace.first_token_p95)],
    ["Adapters", count(all.adapters)],
    ["Versions on a device", count(all.resident_versions)],
    ["Requests, 24 h", count(day.requests)],
    ["Cost, 24 h", money(day.cost)],
    ["From the cache, 24 h", percent(share(day.cached_tokens, day.prompt_tokens))],
    ["Guesses that stood, 24 h", percent(share(day.accepted_tokens, day.drafted_tokens))],
    [
      "Unreconciled tokens",
      all.unreconciled_tokens === null ? "not checked" : count(all.unreconciled_tokens),
    ],
  ];
  return (
    <Panel
      title="Now"
      aside={
        <span className="flex items-center gap-3 text-xs text-ink-soft">
          books checked {ago(all.reconciled_at)}
          <Chip tone={pace.engine_ready ? "good" : "bad"} icon={pace.engine_ready ? CheckCircle2 : XCircle}>
            {pace.engine_ready ? "ready" : "away"}
          </Chip>
        </span>
      }
    >
      <dl className="grid grid-cols-2 gap-x-6 gap-y-4 sm:grid-cols-3 lg:grid-cols-6">
        {cells.map(([label, value]) => (
          <div key={label}>
            <dt className="text-xs text-ink-soft">{label}</dt>
            <dd className="text-lg font-semibold tabular-nums">{value}</dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}

const GUESSES: ColumnDef<SpeculationView, unknown>[] = [
  {
    header: "Tenant and model",
    cell: ({ row: { original: one } }) => (
      <span className="[overflow-wrap:anywhere]">
        <span className="text-ink-soft">{one.tenant} / </span>
        <span className="font-medium">{one.model}</span>
      </span>
    ),
  },
  {
    header: "Tokens a step",
    meta: { numeric: true },
    cell: ({ row }) => row.original.tokens_per_step.toFixed(2),
  },
  {
    header: "Steps saved",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row }) => count(row.original.steps_saved),
  },
  {
    header: "Proposers",
    cell: ({ row }) => (
      <span className="flex flex-wrap gap-1">
        {row.original.proposers.map((one) => (
          <Chip key={one.proposer} tone="accent">
            {one.proposer}: {percent(one.acceptance)} of {count(one.drafted_tokens)}
          </Chip>
        ))}
      </span>
    ),
  },
];
