import type { ColumnDef } from "@tanstack/react-table";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { answer, api } from "@/lib/api/client";
import type { WalletEntryView } from "@/lib/api/schema";
import { dateTime, money } from "@/lib/format";

export const WALLET_COLUMNS: ColumnDef<WalletEntryView, unknown>[] = [
  {
    header: "When",
    cell: ({ row }) => dateTime(row.original.at),
  },
  {
    header: "What",
    cell: ({ row: { original: entry } }) => (
      <>
        {entry.kind}
        {entry.note && (
          <div className="min-w-16 text-xs text-ink-soft [overflow-wrap:anywhere]">{entry.note}</div>
        )}
      </>
    ),
  },
  { header: "Amount", meta: { numeric: true, kept: true }, cell: ({ row }) => money(row.original.amount) },
  {
    header: "Balance after",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row }) => money(row.original.balance_after),
  },
];

export function Wallet() {
  const query = usePages<WalletEntryView>(["limits", "wallet"], (after) =>
    answer(
      api.GET("/api/v1/wallet", {
        params: { query: { limit: 20, after: after === undefined ? undefined : Number(after) } },
      }),
    ),
  );
  return (
    <Panel title="Wallet" flush>
      <View query={query} rows={4}>
        {(entries) => (
          <DataTable
            caption="Wallet entries"
            columns={WALLET_COLUMNS}
            rows={entries}
            rowKey={(entry) => String(entry.seq)}
            empty={
              <Empty title="No entries yet">Grants, corrections and every settled request appear here.</Empty>
            }
            footer={<More query={query} shown={entries.length} />}
          />
        )}
      </View>
    </Panel>
  );
}
