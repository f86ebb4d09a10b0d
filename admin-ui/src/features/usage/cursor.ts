import type { Group, Stack } from "./stack";

/** Where the keyboard is in a chart: a bucket's start, and a group's key. */
export interface Cursor {
  at: number;
  key: string;
}

type Row = Stack["rows"][number];

/** The groups that have a part in a bar, the dearest first. */
function parts(stack: Stack, row: Row): Group[] {
  return stack.groups.filter((group) => (row[group.key] ?? 0) > 0);
}

/** The bar's part under a cursor, or null where there is none (any more). */
export function pointed(stack: Stack, cursor: Cursor | null): { row: Row; group: Group } | null {
  const row = stack.rows.find((one) => one.at === cursor?.at);
  const group = row && parts(stack, row).find((one) => one.key === cursor?.key);
  return row && group ? { row, group } : null;
}

/** Left and right from bar to bar, up and down within one; null for a key that moves nothing. */
export function moved(stack: Stack, cursor: Cursor | null, key: string): Cursor | null {
  const bars = stack.rows.filter((row) => parts(stack, row).length > 0);
  const here = pointed(stack, cursor);
  const index = here ? bars.indexOf(here.row) : -1;
  const last = bars.length - 1;
  const goals: Record<string, number> = {
    ArrowRight: Math.min(index + 1, last),
    ArrowLeft: here ? Math.max(index - 1, 0) : last,
    Home: 0,
    End: last,
  };
  const goal = goals[key];
  if (goal !== undefined) {
    const row = bars[goal];
    const group = row && (parts(stack, row).find((one) => one.key === cursor?.key) ?? parts(stack, row)[0]);
    return row && group ? { at: row.at, key: group.key } : null;
  }
  if (!here || (key !== "ArrowUp" && key !== "ArrowDown")) return null;
  const within = parts(stack, here.row);
  const step = within.indexOf(here.group) + (key === "ArrowDown" ? -1 : 1);
  const next = within[Math.max(0, Math.min(step, within.length - 1))];
  return next ? { at: here.row.at, key: next.key } : null;
}
