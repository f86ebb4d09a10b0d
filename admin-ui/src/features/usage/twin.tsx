import type { ReactNode } from "react";
import { type Bucket, bucketName } from "./ranges";
import type { Pick, Stack } from "./stack";

interface Props {
  stack: Stack;
  bucket: Bucket;
  caption: string;
  show: (value: number) => string;
  onPick?: Pick;
}

/** What a chart shows, as a table: whatever can be picked there can be picked here. */
export function Twin({ stack, bucket, caption, show, onPick }: Props) {
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
                <Cell onPick={onPick && (() => onPick(row.at, null))}>{bucketName(row.at, bucket)}</Cell>
              </th>
              {stack.groups.map((group) => (
                <td key={group.key} className="px-2 py-1.5 text-right">
                  <Cell onPick={onPick && row[group.key] ? () => onPick(row.at, group) : undefined}>
                    {show(row[group.key] ?? 0)}
                    <span className="sr-only">{` by ${group.label}`}</span>
                  </Cell>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Cell({ onPick, children }: { onPick?: () => void; children: ReactNode }) {
  if (!onPick) return children;
  return (
    <button type="button" className="text-accent underline underline-offset-2" onClick={onPick}>
      {children}
    </button>
  );
}
