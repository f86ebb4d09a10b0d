import {
  type ColumnDef,
  getCoreRowModel,
  type RowData,
  type SortingState,
  useReactTable,
} from "@tanstack/react-table";
import { ArrowDown, ArrowUp, ChevronsUpDown } from "lucide-react";
import type { ReactNode } from "react";
import { cn } from "@/lib/cn";

declare module "@tanstack/react-table" {
  interface ColumnMeta<TData extends RowData, TValue> {
    numeric?: boolean;
    /** Left out on phones. */
    wideOnly?: boolean;
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
  if (rows.length === 0 && empty) return <>{empty}</>;
  return (
    <>
      <section aria-label={caption} className="relative overflow-x-auto" {...SCROLLS}>
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
                        "px-4 py-2 text-left text-xs font-medium whitespace-nowrap text-ink-soft",
                        column.columnDef.meta?.numeric && "text-right",
                        column.columnDef.meta?.wideOnly && "max-md:hidden",
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
              <tr key={row.id} className="border-b border-line last:border-b-0 hover:bg-raised/50">
                {row.getVisibleCells().map((cell) => (
                  <td
                    key={cell.id}
                    className={cn(
                      "px-4 py-2.5 align-middle",
                      cell.column.columnDef.meta?.numeric && "text-right whitespace-nowrap",
                      cell.column.columnDef.meta?.wideOnly && "max-md:hidden",
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
