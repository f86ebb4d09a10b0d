import { useRouterState } from "@tanstack/react-router";
import {
  type ColumnDef,
  type ColumnMeta,
  getCoreRowModel,
  type RowData,
  type SortingState,
  useReactTable,
} from "@tanstack/react-table";
import { ArrowDown, ArrowUp, ChevronsUpDown } from "lucide-react";
import { type ReactNode, type RefObject, useEffect, useRef } from "react";
import { cn } from "@/lib/cn";
import { useMoreToTheRight } from "./overflow";

declare module "@tanstack/react-table" {
  interface ColumnMeta<TData extends RowData, TValue> {
    numeric?: boolean;
    /** Left out where the table is narrow: on phones, and with "very" on tablets too. */
    wideOnly?: boolean | "very";
    /** A tick or an icon: no wider than it is. */
    tight?: boolean;
    /** Never beyond the edge, however narrow: it stays there while the rest scrolls. Acts do so by their id. */
    kept?: boolean;
  }
}

/** One order at a time, decided by the server. */
export interface Order {
  by: string;
  descending: boolean;
}

interface Props<T> {
  caption: string;
  columns: ColumnDef<T, unknown>[];
  rows: T[];
  rowKey: (row: T) => string;
  order?: Order;
  onOrder?: (order: Order) => void;
  empty?: ReactNode;
  footer?: ReactNode;
}

export function DataTable<T>({ caption, columns, rows, rowKey, order, onOrder, empty, footer }: Props<T>) {
  const sorting: SortingState = order ? [{ id: order.by, desc: order.descending }] : [];
  const table = useReactTable({
    data: rows,
    columns,
    getRowId: rowKey,
    state: { sorting },
    manualSorting: true,
    enableSorting: Boolean(onOrder),
    getCoreRowModel: getCoreRowModel(),
  });
  const scroller = useRef<HTMLElement>(null);
  const more = useMoreToTheRight(scroller);
  const named = useNamedRow(scroller, rows.length);
  if (rows.length === 0 && empty) return <>{empty}</>;
  return (
    <>
      <section
        ref={scroller}
        aria-label={caption}
        data-more={more || undefined}
        className="group/table @container relative overflow-x-auto rounded-b-xl [section>div:first-child>&:first-child]:rounded-t-xl"
        {...SCROLLS}
      >
        <table className="w-full border-collapse text-sm">
          <caption className="sr-only">{caption}</caption>
          <thead>
            {table.getHeaderGroups().map((group) => (
              <tr key={group.id} className="border-b border-line">
                {group.headers.map((header) => {
                  const column = header.column;
                  const sorts = Boolean(onOrder) && column.columnDef.enableSorting === true;
                  const current = order?.by === column.id ? order : undefined;
                  return (
                    <th
                      key={header.id}
                      scope="col"
                      aria-sort={
                        sorts
                          ? current
                            ? current.descending
                              ? "descending"
                              : "ascending"
                            : "none"
                          : undefined
                      }
                      className={cn(
                        "px-4 py-2 text-left @max-lg:px-2.5 text-xs font-medium whitespace-nowrap text-ink-soft",
                        placed(column),
                      )}
                    >
                      {sorts ? (
                        <button
                          type="button"
                          onClick={() =>
                            onOrder?.({ by: column.id, descending: current ? !current.descending : true })
                          }
                          className="-mx-1 inline-flex items-center gap-1 rounded px-1 py-0.5 hover:text-ink"
                        >
                          {drawn(column.columnDef.header, header.getContext())}
                          <Arrow current={current} />
                        </button>
                      ) : (
                        drawn(column.columnDef.header, header.getContext())
                      )}
                    </th>
                  );
                })}
              </tr>
            ))}
          </thead>
          <tbody>
            {table.getRowModel().rows.map((row) => (
              <tr
                key={row.id}
                data-row={row.id}
                aria-current={row.id === named || undefined}
                className="border-b border-line last:border-b-0 hover:bg-raised/50 aria-[current]:bg-accent-wash"
              >
                {row.getVisibleCells().map((cell) => (
                  <td
                    key={cell.id}
                    className={cn(
                      "px-4 py-2.5 align-middle @max-lg:px-2.5",
                      cell.column.columnDef.meta?.numeric && "whitespace-nowrap",
                      placed(cell.column),
                      cell.column.id === "acts" && STACKED,
                    )}
                  >
                    {drawn(cell.column.columnDef.cell, cell.getContext())}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {footer}
    </>
  );
}

function placed({ id, columnDef: { meta } }: { id: string; columnDef: { meta?: ColumnMeta<never, never> } }) {
  return cn(
    !meta?.tight && "first:min-w-36",
    meta?.numeric && "text-right",
    meta?.wideOnly === true && "@max-2xl:hidden",
    meta?.wideOnly === "very" && "@max-5xl:hidden",
    (meta?.kept || id === "acts") && KEPT,
  );
}

// Opaque, because the rest passes below it; the shadow says that there is a rest.
const KEPT =
  "sticky right-0 bg-surface [tr[aria-current]>&]:bg-accent-wash group-data-more/table:shadow-[-12px_0_12px_-12px_var(--ink-soft)]";
const STACKED = "@max-2xl:[&>span]:flex-col @max-2xl:[&>span]:items-stretch";

/** The row that the URL's hash names: brought into view once it is there. */
function useNamedRow(scroller: RefObject<HTMLElement | null>, rows: number): string {
  const hash = useRouterState({ select: (state) => state.location.hash });
  // biome-ignore lint/correctness/useExhaustiveDependencies: looked for again when rows came
  useEffect(() => {
    if (hash)
      scroller.current
        ?.querySelector(`[data-row="${CSS.escape(hash)}"]`)
        ?.scrollIntoView({ block: "center" });
  }, [hash, rows]);
  return hash;
}

// Called, not mounted as a component: columns are made anew with their data, and a button that the keyboard is on must
// outlive that.
function drawn<C>(template: string | ((context: C) => ReactNode) | undefined, context: C): ReactNode {
  return typeof template === "function" ? template(context) : template;
}

// A region that scrolls must be reachable by keyboard (WCAG 2.1.1).
const SCROLLS = { tabIndex: 0 };

function Arrow({ current }: { current: Order | undefined }) {
  if (!current) return <ChevronsUpDown aria-hidden className="size-3.5 opacity-60" />;
  const Icon = current.descending ? ArrowDown : ArrowUp;
  return <Icon aria-hidden className="size-3.5 text-accent" />;
}
