import { useMemo, useState } from "react";
import { Bar, BarChart, CartesianGrid, ResponsiveContainer, Tooltip, XAxis, YAxis } from "recharts";
import { Button } from "@/components/ui/button";
import { count, money, shortTime } from "@/lib/format";
import { type Measure, type Stack, stackOf } from "./stack";
import type { Series } from "./usage";

const COLOURS = Array.from({ length: 8 }, (_, i) => `var(--chart-${i + 1})`);

interface Props {
  series: Series;
  measure: Measure;
  caption: string;
  compact?: boolean;
  onPick?: (at: number, group: string | null) => void;
}

/** Stacked bars, and the same as a table; the legend names what the colours mean. */
export function StackedChart({ series, measure, caption, compact = false, onPick }: Props) {
  const [asTable, setAsTable] = useState(false);
  const stack = useMemo(() => stackOf(series.data, series.span, measure), [series, measure]);
  const show = (value: number) => (measure === "cost" ? money(String(value)) : count(value));
  if (stack.groups.length === 0) {
    return <p className="py-10 text-center text-sm text-ink-soft">No usage in this time.</p>;
  }
  const colour = (index: number, rest: boolean) =>
    rest ? "var(--chart-rest)" : (COLOURS[index % COLOURS.length] ?? "var(--chart-1)");
  return (
    <div>
      <div className="mb-2 flex flex-wrap items-start justify-between gap-2">
        <ul className="flex flex-wrap gap-x-4 gap-y-1 text-xs">
          {stack.groups.map((group, i) => (
            <li key={group.key} className="flex items-center gap-1.5">
              <span
                aria-hidden
                className="size-2.5 rounded-sm"
                style={{ background: colour(i, group.rest) }}
              />
              <span className="max-w-44 truncate">{group.label}</span>
              <span className="text-ink-soft tabular-nums">{show(group.total)}</span>
            </li>
          ))}
        </ul>
        <Button look="quiet" size="sm" aria-pressed={asTable} onClick={() => setAsTable((on) => !on)}>
          {asTable ? "As a chart" : "As a table"}
        </Button>
      </div>
      {asTable ? (
        <Twin stack={stack} caption={caption} show={show} onPick={onPick} />
      ) : (
        <figure aria-label={`${caption}. The same numbers are in the table.`}>
          <ResponsiveContainer width="100%" height={compact ? 220 : 300}>
            <BarChart data={stack.rows} margin={{ top: 4, right: 4, bottom: 0, left: 0 }} accessibilityLayer>
              <CartesianGrid vertical={false} stroke="var(--line)" />
              <XAxis
                dataKey="at"
                tickFormatter={(at: number) => shortTime(at)}
                minTickGap={48}
                tickLine={false}
                axisLine={false}
                tick={{ fill: "var(--ink-soft)", fontSize: 12 }}
              />
              <YAxis
                width={64}
                tickFormatter={show}
                tickLine={false}
                axisLine={false}
                tick={{ fill: "var(--ink-soft)", fontSize: 12 }}
              />
              <Tooltip
                isAnimationActive={false}
                cursor={{ fill: "var(--raised)" }}
                content={({ active, payload, label }) =>
                  active && payload?.length ? (
                    <div className="rounded-lg border border-line bg-surface px-3 py-2 text-xs shadow-float">
                      <p className="mb-1 font-medium">{shortTime(Number(label))}</p>
                      {payload
                        .filter((part) => Number(part.value) > 0)
                        .map((part) => (
                          <p key={String(part.dataKey)} className="flex items-center justify-between gap-4">
                            <span className="flex items-center gap-1.5">
                              <span className="size-2 rounded-sm" style={{ background: part.color }} />
                              {part.name}
                            </span>
                            <span className="tabular-nums">{show(Number(part.value))}</span>
                          </p>
                        ))}
                    </div>
                  ) : null
                }
              />
              {stack.groups.map((group, i) => (
                <Bar
                  key={group.key}
                  dataKey={group.key}
                  name={group.label}
                  stackId="all"
                  fill={colour(i, group.rest)}
                  isAnimationActive={false}
                  maxBarSize={42}
                  className={onPick ? "cursor-pointer" : undefined}
                  onClick={(bar) => onPick?.((bar.payload as { at: number }).at, group.id)}
                />
              ))}
            </BarChart>
          </ResponsiveContainer>
        </figure>
      )}
    </div>
  );
}

interface TwinProps {
  stack: Stack;
  caption: string;
  show: (value: number) => string;
  onPick?: (at: number, group: string | null) => void;
}

function Twin({ stack, caption, show, onPick }: TwinProps) {
  const rows = stack.rows.filter((row) => stack.groups.some((group) => (row[group.key] ?? 0) > 0));
  return (
    <section aria-label={caption} className="max-h-80 overflow-auto" {...{ tabIndex: 0 }}>
      <table className="w-full text-sm">
        <caption className="sr-only">{caption}</caption>
        <thead className="sticky top-0 bg-surface">
          <tr className="border-b border-line text-xs text-ink-soft">
            <th scope="col" className="px-2 py-1.5 text-left font-medium">
              Time
            </th>
            {stack.groups.map((group) => (
              <th key={group.key} scope="col" className="px-2 py-1.5 text-right font-medium">
                {group.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.at} className="border-b border-line last:border-b-0">
              <th scope="row" className="px-2 py-1.5 text-left font-normal whitespace-nowrap">
                {onPick ? (
                  <button
                    type="button"
                    className="text-accent underline underline-offset-2"
                    onClick={() => onPick(row.at, null)}
                  >
                    {shortTime(row.at)}
                  </button>
                ) : (
                  shortTime(row.at)
                )}
              </th>
              {stack.groups.map((group) => (
                <td key={group.key} className="px-2 py-1.5 text-right">
                  {show(row[group.key] ?? 0)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
