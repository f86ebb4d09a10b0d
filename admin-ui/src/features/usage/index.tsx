import { useNavigate } from "@tanstack/react-router";
import { X } from "lucide-react";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Panel } from "@/components/ui/panel";
import { RangePicker } from "@/components/ui/range-picker";
import { Segments } from "@/components/ui/segments";
import { Select } from "@/components/ui/select";
import { View } from "@/components/ui/states";
import { useLive } from "@/hooks/use-live";
import { brief, count, money, percent, share } from "@/lib/format";
import { StackedChart } from "./chart";
import { drilled, namesOf } from "./drill";
import { Events } from "./events";
import { bucketEnd, bucketName, type Dates, type Range, spanOf } from "./ranges";
import type { Measure } from "./stack";
import { type By, type Series, useEvents, useSeries } from "./usage";

/** All of it is in the URL: a link shows the same to whoever may see it. */
export interface UsageSearch extends Dates {
  by?: By;
  measure?: Measure;
  range?: Range;
  at?: number;
  key?: string;
  adapter?: string;
  version?: string;
  /** A base model's name: what was asked of it alone. */
  base?: string;
}

const BYS = [
  { value: "adapter", label: "By adapter" },
  { value: "version", label: "By version" },
  { value: "key", label: "By key" },
  { value: "total", label: "In total" },
] as const;
const MEASURES = [
  { value: "cost", label: "Cost" },
  { value: "tokens", label: "Tokens" },
] as const;

export function UsagePage({ search }: { search: UsageSearch }) {
  const navigate = useNavigate();
  useLive();
  const { by = "adapter", measure = "cost", range = "24h", from, to, at } = search;
  const { key, adapter, version, base } = search;
  const series = useSeries({ by, measure, range, from, to, key, adapter });
  const set = (change: Partial<UsageSearch>) =>
    void navigate({ to: "/usage", search: { ...search, ...change } });

  const span = spanOf(range, { from, to });
  const window = at
    ? { from: new Date(at).toISOString(), to: new Date(bucketEnd(at, span.bucket)).toISOString() }
    : { from: span.from, to: span.to };
  const asked = { ...window, key, adapter, version, base };
  const events = useEvents(asked);
  const names = namesOf(series.data?.data ?? [], events.data ?? []);
  const filters = { adapter, version, base, key };
  const narrowed = at !== undefined || Object.values(filters).some((value) => value !== undefined);
  return (
    <>
      <PageHeader
        title="Usage"
        description="Settled requests, to the token. Pick a bar to see the requests in it."
        actions={
          <>
            <RangePicker
              value={range}
              dates={{ from, to }}
              onChange={(next) => set({ ...next, at: undefined })}
            />
            <Select label="Group" value={by} onChange={(next) => set({ by: next })} choices={BYS} />
            <Segments
              label="Measure"
              value={measure}
              onChange={(next) => set({ measure: next })}
              choices={MEASURES}
            />
          </>
        }
      />
      <div className="grid gap-4">
        <Panel title={measure === "cost" ? "Cost over time" : "Tokens over time"}>
          <View query={series} rows={7}>
            {(data) => (
              <div
                aria-busy={series.isPlaceholderData}
                className={series.isPlaceholderData ? "pointer-events-none opacity-50" : undefined}
              >
                <p role="status" className="sr-only">
                  {series.isPlaceholderData ? "Loading…" : ""}
                </p>
                <Sums series={data} />
                <StackedChart
                  series={data}
                  measure={measure}
                  caption={`Usage ${data.group_by === "total" ? "in total" : `by ${data.group_by}`}`}
                  onPick={(start, group) => set({ at: start, ...drilled(data.group_by, group) })}
                />
              </div>
            )}
          </View>
        </Panel>
        {narrowed && (
          <div className="flex flex-wrap items-center gap-2 text-sm">
            <span className="text-ink-soft">Only</span>
            {at !== undefined && (
              <Filter label={bucketName(at, span.bucket)} onClear={() => set({ at: undefined })} />
            )}
            {Object.entries(filters).map(
              ([filter, value]) =>
                value !== undefined && (
                  <Filter
                    key={filter}
                    label={filter === "base" ? `${value} alone` : (names.get(value) ?? brief(value))}
                    onClear={() => set({ [filter]: undefined })}
                  />
                ),
            )}
          </div>
        )}
        <Events asked={asked} query={events} />
      </div>
    </>
  );
}

function Filter({ label, onClear }: { label: string; onClear: () => void }) {
  return (
    <Button size="sm" onClick={onClear} aria-label={`Remove the filter ${label}`}>
      <span className="max-w-52 truncate">{label}</span> <X aria-hidden />
    </Button>
  );
}

function Sums({ series }: { series: Series }) {
  const sum = (pick: (point: Series["data"][number]) => number) =>
    series.data.reduce((all, point) => all + pick(point), 0);
  const prompt = sum((p) => p.prompt_tokens);
  const cells: [string, string][] = [
    ["Cost", money(String(sum((p) => Number(p.cost)).toFixed(9)))],
    ["Requests", count(sum((p) => p.requests))],
    ["Prompt tokens", count(prompt)],
    [
      "From the cache",
      percent(
        share(
          sum((p) => p.cached_tokens),
          prompt,
        ),
      ),
    ],
    ["Completion tokens", count(sum((p) => p.completion_tokens))],
    [
      "Guesses that stood",
      percent(
        share(
          sum((p) => p.accepted_tokens),
          sum((p) => p.drafted_tokens),
        ),
      ),
    ],
  ];
  return (
    <dl className="mb-4 grid grid-cols-2 gap-x-6 gap-y-3 sm:grid-cols-3 lg:grid-cols-6">
      {cells.map(([label, value]) => (
        <div key={label}>
          <dt className="text-xs text-ink-soft">{label}</dt>
          <dd className="text-lg font-semibold tabular-nums">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
