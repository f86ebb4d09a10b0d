import type { SeriesPoint } from "@/lib/api/schema";
import { bucketsOf, type Span } from "./ranges";

export type Measure = "cost" | "tokens";

/** One colour of a stacked chart. id: null for the base model, the total, and the rest. */
export interface Group {
  key: string;
  id: string | null;
  label: string;
  rest: boolean;
  total: number;
}

/** A bar's part was picked, or with null all of a bucket. */
export type Pick = (at: number, group: Group | null) => void;

export interface Stack {
  groups: Group[];
  /** One row a bucket: its start, and every group's amount under the group's key. */
  rows: (Record<string, number> & { at: number })[];
}

export function amount(point: SeriesPoint, measure: Measure): number {
  return measure === "cost" ? Number(point.cost) : point.prompt_tokens + point.completion_tokens;
}

function keyOf(point: SeriesPoint): string {
  if (point.rest) return "rest";
  return point.id ?? `label:${point.label ?? ""}`;
}

/** Points as rows for a chart: the dearest group first, everything beyond the named ones last. */
export function stackOf(points: readonly SeriesPoint[], span: Span, measure: Measure): Stack {
  const groups = new Map<string, Group>();
  for (const point of points) {
    const key = keyOf(point);
    const group = groups.get(key) ?? {
      key,
      id: point.id,
      label: point.rest ? "all others" : (point.label ?? "all"),
      rest: point.rest,
      total: 0,
    };
    group.total += amount(point, measure);
    groups.set(key, group);
  }
  const ordered = [...groups.values()].sort(
    (a, b) => Number(a.rest) - Number(b.rest) || b.total - a.total || a.label.localeCompare(b.label),
  );
  const rows = new Map(
    bucketsOf(span).map((at) => {
      const row: Record<string, number> & { at: number } = { at };
      for (const group of ordered) row[group.key] = 0;
      return [at, row];
    }),
  );
  for (const point of points) {
    const row = rows.get(Date.parse(point.at));
    const key = keyOf(point);
    if (row) row[key] = (row[key] ?? 0) + amount(point, measure);
  }
  return { groups: ordered, rows: [...rows.values()] };
}
