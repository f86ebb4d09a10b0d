import { useNavigate } from "@tanstack/react-router";
import type { ColumnDef } from "@tanstack/react-table";
import { ArrowRightLeft, KeyRound, LogIn, type LucideIcon, ShieldOff, Upload, X } from "lucide-react";
import { Actor } from "@/components/actor";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Panel } from "@/components/ui/panel";
import { RangePicker } from "@/components/ui/range-picker";
import { Empty, View } from "@/components/ui/states";
import { type Dates, type Range, spanOf } from "@/features/usage/ranges";
import { answer, api } from "@/lib/api/client";
import type { ActView } from "@/lib/api/schema";
import { ago, dateTime } from "@/lib/format";

const KINDS: Record<string, [string, LucideIcon]> = {
  alias_moved: ["Alias moved", ArrowRightLeft],
  version_uploaded: ["Version uploaded", Upload],
  key_created: ["Key created", KeyRound],
  key_revoked: ["Key revoked", ShieldOff],
  signed_in: ["Signed in to the console", LogIn],
};

const COLUMNS: ColumnDef<ActView, unknown>[] = [
  {
    header: "When",
    cell: ({ row }) => (
      <span className="whitespace-nowrap" title={dateTime(row.original.at)}>
        {ago(row.original.at)}
      </span>
    ),
  },
  {
    header: "What",
    cell: ({ row: { original: act } }) => {
      const [label, Icon] = KINDS[act.kind] ?? [act.kind, ArrowRightLeft];
      return (
        <span className="flex items-center gap-2">
          <Icon aria-hidden className="size-4 shrink-0 text-ink-soft" /> {label}
        </span>
      );
    },
  },
  {
    header: "Which",
    cell: ({ row: { original: act } }) => (
      <div className="[overflow-wrap:anywhere]">
        <span className="font-medium">{act.subject}</span> <span className="text-ink-soft">{act.detail}</span>
        {act.reason && <div className="text-ink-soft">“{act.reason}”</div>}
      </div>
    ),
  },
  { header: "Who", cell: ({ row }) => <Actor actor={row.original.actor} /> },
];

export interface ActivitySearch extends Dates {
  range?: Range;
  adapter?: string;
}

export function ActivityPage({ search }: { search: ActivitySearch }) {
  const navigate = useNavigate();
  const { range, from, to, adapter } = search;
  const set = (change: ActivitySearch) =>
    void navigate({ to: "/activity", search: { ...search, ...change }, replace: true });
  const query = usePages<ActView>(["activity", search], (after) => {
    const span = range ? spanOf(range, { from, to }) : undefined;
    const asked = { limit: 50, after, adapter, from: span?.from, to: span?.to };
    return answer(api.GET("/api/v1/activity", { params: { query: asked } }));
  });
  return (
    <>
      <PageHeader
        title="Activity"
        description="Who changed what: told from the rows that the acts left, so it cannot disagree with them."
        actions={
          <>
            {adapter && (
              <Button onClick={() => set({ adapter: undefined })} aria-label={`Remove the filter ${adapter}`}>
                <span className="max-w-52 truncate">{adapter}</span> <X aria-hidden />
              </Button>
            )}
            <RangePicker<Range | "any">
              any
              value={range ?? "any"}
              dates={{ from, to }}
              onChange={({ range: next, ...dates }) =>
                set({ range: next === "any" ? undefined : next, ...dates })
              }
            />
          </>
        }
      />
      <Panel flush>
        <View query={query}>
          {(acts) => (
            <DataTable
              caption="Activity"
              columns={COLUMNS}
              rows={acts}
              rowKey={(act) => `${act.at} ${act.kind} ${act.subject}`}
              empty={
                <Empty title={range || adapter ? "Nothing happened in this time" : "Nothing happened yet"} />
              }
              footer={<More query={query} shown={acts.length} />}
            />
          )}
        </View>
      </Panel>
    </>
  );
}
