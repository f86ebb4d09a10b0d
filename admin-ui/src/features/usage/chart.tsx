import { type KeyboardEvent, useMemo, useState } from "react";
import {
  Bar,
  BarChart,
  CartesianGrid,
  ReferenceLine,
  ResponsiveContainer,
  Tooltip,
  XAxis,
  YAxis,
} from "recharts";
import { Button } from "@/components/ui/button";
import { count, money } from "@/lib/format";
import { type Cursor, moved, pointed } from "./cursor";
import { bucketName, bucketTick } from "./ranges";
import { type Measure, type Pick, stackOf } from "./stack";
import { Twin } from "./twin";
import type { Series } from "./usage";

const COLOURS = Array.from({ length: 8 }, (_, i) => `var(--chart-${i + 1})`);

interface Props {
  series: Series;
  measure: Measure;
  caption: string;
  compact?: boolean;
  onPick?: Pick;
}

/** Stacked bars, and the same as a table; the legend names what the colours mean. Bars are picked by keys, too. */
export function StackedChart({ series, measure, caption, compact = false, onPick }: Props) {
  const [asTable, setAsTable] = useState(false);
  const stack = useMemo(() => stackOf(series.data, series.span, measure), [series, measure]);
  const bucket = series.span.bucket;
  const [cursor, setCursor] = useState<Cursor | null>(null);
  const at = pointed(stack, cursor);
  const show = (value: number) => (measure === "cost" ? money(String(value)) : count(value));
  if (stack.groups.length === 0) {
    return <p className="py-10 text-center text-sm text-ink-soft">No usage in this time.</p>;
  }
  const colour = (index: number, rest: boolean) =>
    rest ? "var(--chart-rest)" : (COLOURS[index % COLOURS.length] ?? "var(--chart-1)");
  function onKeyDown(event: KeyboardEvent) {
    const next = moved(stack, cursor, event.key);
    if (next) setCursor(next);
    else if (at && onPick && event.key === "Enter") onPick(at.row.at, at.group);
    else return;
    event.preventDefault();
  }
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
        <Twin stack={stack} bucket={bucket} caption={caption} show={show} onPick={onPick} />
      ) : (
        <figure
          aria-label={`${caption}. Arrow keys go from bar to bar${onPick ? ", Enter shows the requests in one" : ""}. The same numbers are in the table.`}
          onKeyDown={onKeyDown}
          onBlur={() => setCursor(null)}
          {...FOCUSABLE}
        >
          <ResponsiveContainer width="100%" height={compact ? 220 : 300}>
            <BarChart
              data={stack.rows}
              margin={{ top: 4, right: 4, bottom: 0, left: 0 }}
              accessibilityLayer={false}
            >
              <CartesianGrid vertical={false} stroke="var(--line)" />
              <XAxis
                dataKey="at"
                tickFormatter={(at: number) => bucketTick(at, bucket)}
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
                      <p className="mb-1 font-medium">{bucketName(Number(label), bucket)}</p>
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
              {at && <ReferenceLine x={at.row.at} stroke="var(--accent)" strokeWidth={2} />}
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
                  onClick={(bar) => onPick?.((bar.payload as { at: number }).at, group)}
                />
              ))}
            </BarChart>
          </ResponsiveContainer>
          <p role="status" className="min-h-4 text-xs text-ink-soft">
            {at && `${bucketName(at.row.at, bucket)}: ${at.group.label} ${show(at.row[at.group.key] ?? 0)}`}
          </p>
        </figure>
      )}
    </div>
  );
}

// The chart answers to arrow keys, so the keyboard must reach it.
const FOCUSABLE = { tabIndex: 0 };
