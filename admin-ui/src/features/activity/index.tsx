import { useNavigate } from "@tanstack/react-router";
import type { ColumnDef } from "@tanstack/react-table";
import { X } from "lucide-react";
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
import { asked, type Kind, LABELS } from "./kinds";
import { KindsMenu } from "./kinds-menu";

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
      const [label, Icon] = LABELS[act.kind];
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
        {act.tenant && <div className="text-ink-soft">at tenant {act.tenant}</div>}
        {act.reason && <div className="text-ink-soft">“{act.reason}”</div>}
      </div>
    ),
  },
  { header: "Who", cell: ({ row }) => <Actor actor={row.original.actor} /> },
];

export interface ActivitySearch extends Dates {
  range?: Range;
  adapter?: string;
  kind?: Kind[];
  signIns?: "hidden";
}

export function ActivityPage({ search }: { search: ActivitySearch }) {
  const navigate = useNavigate();
  const { range, from, to, adapter, kind, signIns } = search;
  const kinds = { only: kind, signIns };
  const set = (change: ActivitySearch) =>
    void navigate({ to: "/activity", search: { ...search, ...change } });
  const query = usePages<ActView>(["activity", search], (after) => {
    const span = range ? spanOf(range, { from, to }) : undefined;
    const query = { limit: 50, after, adapter, kind: asked(kinds), from: span?.from, to: span?.to };
    return answer(api.GET("/api/v1/activity", { params: { query } }));
  });
  return (
    <>
      <PageHeader
        title="Activity"
        description="Who did what, newest first: one row an act, written with it and never changed."
        actions={
          <>
            {adapter && (
              <Button onClick={() => set({ adapter: undefined })} aria-label={`Remove the filter ${adapter}`}>
                <span className="max-w-52 truncate">{adapter}</span> <X aria-hidden />
              </Button>
            )}
            <KindsMenu
              kinds={kinds}
              onChange={({ only, signIns: hidden }) => set({ kind: only, signIns: hidden })}
            />
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
              rowKey={(act) => act.id}
              empty={
                <Empty
                  title={
                    range || adapter || asked(kinds) ? "Nothing of this kind or time" : "Nothing happened yet"
                  }
                />
              }
              footer={<More query={query} shown={acts.length} />}
            />
          )}
        </View>
      </Panel>
    </>
  );
}
