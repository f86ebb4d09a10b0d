import { Link, useNavigate } from "@tanstack/react-router";
import type { ColumnDef } from "@tanstack/react-table";
import { Upload } from "lucide-react";
import { type DragEvent, useMemo, useState } from "react";
import { DataTable, type Order } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Chip, StateChip } from "@/components/ui/chip";
import { NameSearch } from "@/components/ui/name-search";
import { Panel } from "@/components/ui/panel";
import { Select } from "@/components/ui/select";
import { Empty, View } from "@/components/ui/states";
import { useLive } from "@/hooks/use-live";
import type { AdapterRow, AdapterStatsView, EngineRef, State } from "@/lib/api/schema";
import { ago, count, dateTime, milliseconds, money } from "@/lib/format";
import { type AdapterSearch, useAdapterStats, useAdapters } from "./adapters";
import { Residency } from "./residency";
import { UploadDialog } from "./upload-dialog";

const STATES = [
  { value: "any", label: "Any state" },
  { value: "ready", label: "With a ready version" },
  { value: "rejected", label: "With a rejected one" },
  { value: "validating", label: "Being validated" },
  { value: "retired", label: "With a retired one" },
  { value: "quarantined", label: "With a quarantined one" },
] as const;

const PLACES = [
  { value: "any", label: "Anywhere" },
  { value: "device", label: "On an engine’s device" },
] as const;

interface Row extends AdapterRow {
  stats: AdapterStatsView | undefined;
  engines: readonly EngineRef[];
}

const COLUMNS: ColumnDef<Row, unknown>[] = [
  {
    id: "name",
    header: "Adapter",
    enableSorting: true,
    cell: ({ row: { original: a } }) => (
      <div className="min-w-0 max-w-80">
        <Link
          to="/adapters/$name"
          params={{ name: a.name }}
          className="font-medium text-accent underline-offset-2 [overflow-wrap:anywhere] hover:underline"
        >
          {a.name}
        </Link>
        <div className="truncate text-xs text-ink-soft">{a.description || `on ${a.base_model}`}</div>
      </div>
    ),
  },
  {
    header: "Latest",
    cell: ({ row: { original: a } }) =>
      a.latest_state ? (
        <span className="flex items-center gap-2 whitespace-nowrap">
          <span className="tabular-nums">:{a.latest_version}</span> <StateChip state={a.latest_state} />
        </span>
      ) : (
        <span className="text-ink-soft">no version</span>
      ),
  },
  {
    header: "Answers with",
    meta: { wideOnly: true },
    cell: ({ row: { original: a } }) => (
      <span className="flex flex-wrap gap-1">
        {a.aliases.slice(0, 3).map((alias) => (
          <Chip key={alias.alias} tone={alias.alias === "default" ? "accent" : "plain"}>
            {alias.alias} → {alias.version}
          </Chip>
        ))}
        {a.aliases.length > 3 && <Chip>+{a.aliases.length - 3}</Chip>}
        {a.aliases.length === 0 && <span className="text-ink-soft">nothing</span>}
      </span>
    ),
  },
  {
    header: "Where it is",
    meta: { wideOnly: "very" },
    cell: ({ row }) => <Whereabouts adapter={row.original} />,
  },
  {
    header: "Requests, 24 h",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row }) => (row.original.stats ? count(row.original.stats.requests) : "–"),
  },
  {
    header: () => (
      <abbr title="95th percentile of the time to the first token, last 15 minutes" className="no-underline">
        First token p95
      </abbr>
    ),
    id: "p95",
    meta: { numeric: true, wideOnly: "very" },
    cell: ({ row }) => milliseconds(row.original.stats?.first_token_p95),
  },
  {
    header: "Cost, 24 h",
    meta: { numeric: true, kept: true },
    cell: ({ row }) => (row.original.stats ? money(row.original.stats.cost) : "–"),
  },
  {
    id: "created",
    header: "Created",
    enableSorting: true,
    meta: { wideOnly: "very" },
    cell: ({ row }) => (
      <span className="whitespace-nowrap" title={dateTime(row.original.created_at)}>
        {ago(row.original.created_at)}
      </span>
    ),
  },
];

const MOST_SHOWN = 3;

/** The versions that engines hold; one that answers and is held by none is on disk. */
function Whereabouts({ adapter: { name, stats, engines, aliases } }: { adapter: Row }) {
  if (!stats || (stats.resident.length === 0 && aliases.length === 0))
    return <span className="text-ink-soft">–</span>;
  if (stats.resident.length === 0) return <Residency model={name} engines={engines} held={undefined} />;
  return (
    <span className="flex flex-col items-start gap-1">
      {stats.resident.slice(0, MOST_SHOWN).map((one) => (
        <span key={one.version} className="flex items-center gap-1">
          <span className="text-xs tabular-nums text-ink-soft">:{one.version}</span>
          <Residency model={`${name}:${one.version}`} engines={engines} held={one} />
        </span>
      ))}
      {stats.resident.length > MOST_SHOWN && (
        <span className="text-xs text-ink-soft">and {stats.resident.length - MOST_SHOWN} more versions</span>
      )}
    </span>
  );
}

export function AdaptersPage({ search }: { search: AdapterSearch }) {
  const navigate = useNavigate();
  useLive();
  const query = useAdapters(search);
  const rows = query.data;
  const { byAdapter, engines } = useAdapterStats(useMemo(() => (rows ?? []).map((row) => row.id), [rows]));
  const [uploading, setUploading] = useState<File[] | null>(null);
  const [over, setOver] = useState(false);
  const order: Order = { by: search.sort ?? "created", descending: (search.order ?? "desc") === "desc" };
  // Every view is one step back, but not every letter of a name.
  const set = (change: Partial<AdapterSearch>, replace = false) =>
    void navigate({ to: "/adapters", search: (old) => ({ ...old, ...change }), replace });

  function drop(event: DragEvent) {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length > 0) setUploading([...event.dataTransfer.files]);
  }

  const filtered = Boolean(search.name || search.state || search.on_device);
  return (
    <section
      aria-label="Adapters, also a place to drop files on"
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => event.currentTarget === event.target && setOver(false)}
      onDrop={drop}
      className={over ? "rounded-xl outline-2 outline-accent outline-dashed outline-offset-8" : ""}
    >
      <PageHeader
        title="Adapters"
        description="Each name answers with the version that its default alias points at. Drop files anywhere here to upload."
        actions={
          <Button look="solid" onClick={() => setUploading([])}>
            <Upload aria-hidden /> Upload
          </Button>
        }
      />
      <Panel
        flush
        aside={
          <div className="flex w-full flex-wrap gap-2">
            <NameSearch value={search.name} onSearch={(name) => set({ name }, true)} />
            <Select
              label="State"
              value={search.state ?? "any"}
              onChange={(next) => set({ state: next === "any" ? undefined : (next as State) })}
              choices={STATES}
            />
            <Select
              label="Place"
              value={search.on_device ? "device" : "any"}
              onChange={(next) => set({ on_device: next === "device" ? true : undefined })}
              choices={PLACES}
            />
          </div>
        }
      >
        <View query={query}>
          {(adapters) => (
            <DataTable
              caption="Adapters"
              columns={COLUMNS}
              rows={adapters.map((row) => ({ ...row, stats: byAdapter.get(row.id), engines }))}
              rowKey={(row) => row.id}
              order={order}
              onOrder={(next) =>
                set({
                  sort: next.by === "name" ? "name" : "created",
                  order:
                    next.by === order.by
                      ? next.descending
                        ? "desc"
                        : "asc"
                      : next.by === "name"
                        ? "asc"
                        : "desc",
                })
              }
              empty={
                filtered ? (
                  <Empty
                    title="No adapter is like that"
                    action={
                      <Button
                        onClick={() => set({ name: undefined, state: undefined, on_device: undefined })}
                      >
                        Show all
                      </Button>
                    }
                  />
                ) : (
                  <Empty
                    title="No adapters yet"
                    action={
                      <Button look="solid" onClick={() => setUploading([])}>
                        <Upload aria-hidden /> Upload the first
                      </Button>
                    }
                  >
                    Drop a LoRA as PEFT saved it. It is checked tensor by tensor before it may answer.
                  </Empty>
                )
              }
              footer={<More query={query} shown={adapters.length} />}
            />
          )}
        </View>
      </Panel>
      {uploading && <UploadDialog dropped={uploading} onClose={() => setUploading(null)} />}
    </section>
  );
}
