import type { ColumnDef } from "@tanstack/react-table";
import { Download } from "lucide-react";
import { useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { Button } from "@/components/ui/button";
import { StateChip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import type { UsageEventView } from "@/lib/api/schema";
import { csv, download } from "@/lib/csv";
import { brief, count, dateTime, inCurrency, milliseconds, money } from "@/lib/format";
import { allEvents, type EventsAsked, type useEvents } from "./usage";

const COLUMNS: ColumnDef<UsageEventView, unknown>[] = [
  {
    header: "When, request",
    cell: ({ row: { original: e } }) => (
      <div className="whitespace-nowrap">
        {dateTime(e.occurred_at)}
        <div className="font-mono text-xs text-ink-soft" title={e.request_id}>
          {brief(e.request_id)}…{e.request_id.slice(-6)}
        </div>
      </div>
    ),
  },
  { header: "Model", cell: ({ row }) => <span className="font-medium">{row.original.model}</span> },
  {
    header: "Outcome",
    meta: { wideOnly: true },
    cell: ({ row }) => <StateChip state={row.original.outcome} />,
  },
  { header: "Prompt", meta: { numeric: true }, cell: ({ row }) => count(row.original.prompt_tokens) },
  {
    header: "Cached",
    meta: { numeric: true, wideOnly: "very" },
    cell: ({ row }) => count(row.original.cached_tokens),
  },
  { header: "Completion", meta: { numeric: true }, cell: ({ row }) => count(row.original.completion_tokens) },
  {
    header: "Guesses stood",
    meta: { numeric: true, wideOnly: "very" },
    cell: ({ row: { original: e } }) =>
      e.drafted_tokens ? `${count(e.accepted_tokens)} of ${count(e.drafted_tokens)}` : "–",
  },
  {
    header: "Took",
    meta: { numeric: true, wideOnly: "very" },
    cell: ({ row: { original: e } }) =>
      milliseconds((Date.parse(e.occurred_at) - Date.parse(e.admitted_at)) / 1000),
  },
  { header: "Cost", meta: { numeric: true, kept: true }, cell: ({ row }) => money(row.original.cost) },
];

const CSV_FIELDS = [
  "occurred_at",
  "admitted_at",
  "request_id",
  "model",
  "adapter",
  "version",
  "key",
  "key_name",
  "outcome",
  "prompt_tokens",
  "cached_tokens",
  "completion_tokens",
  "drafted_tokens",
  "accepted_tokens",
  "rejected_tokens",
  "cost",
] as const satisfies readonly (keyof UsageEventView)[];

interface Props {
  asked: EventsAsked;
  query: ReturnType<typeof useEvents>;
}

export function Events({ asked, query }: Props) {
  const toast = useToast();
  const [busy, setBusy] = useState(false);

  async function save() {
    setBusy(true);
    try {
      const { events, whole } = await allEvents(asked);
      download(
        "usage.csv",
        csv(
          CSV_FIELDS.map((field) => (field === "cost" ? inCurrency(field) : field)),
          events.map((event) => CSV_FIELDS.map((field) => event[field])),
        ),
      );
      if (!whole)
        toast(
          `The file holds the newest ${count(events.length)} requests: narrow the time for the others.`,
          "bad",
        );
    } catch (failure) {
      toast(failure instanceof Error ? failure.message : "The export failed.", "bad");
    } finally {
      setBusy(false);
    }
  }

  return (
    <Panel
      title="Requests"
      flush
      aside={
        <Button size="sm" onClick={() => void save()} disabled={busy}>
          <Download aria-hidden /> {busy ? "Collecting…" : "CSV"}
        </Button>
      }
    >
      <View query={query}>
        {(events) => (
          <DataTable
            caption="Requests"
            columns={COLUMNS}
            rows={events}
            rowKey={(event) => event.request_id}
            empty={
              <Empty title="No requests in this time">
                Choose another range, or send one from the playground.
              </Empty>
            }
            footer={<More query={query} shown={events.length} />}
          />
        )}
      </View>
    </Panel>
  );
}
