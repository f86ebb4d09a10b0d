import type { ColumnDef } from "@tanstack/react-table";
import { ArrowUpToLine, Copy as CopyIcon, FileSearch, MoreHorizontal, Trash2 } from "lucide-react";
import { useMemo, useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { Button } from "@/components/ui/button";
import { Chip, StateChip } from "@/components/ui/chip";
import { useCopy } from "@/components/ui/copy";
import { Dialog } from "@/components/ui/dialog";
import { Menu, MenuItem, MenuLine } from "@/components/ui/menu";
import { Empty } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import type { AliasView, EngineRef, ResidentView, VersionView } from "@/lib/api/schema";
import { ago, brief, bytes, dateTime } from "@/lib/format";
import type { useVersions } from "./adapters";
import { problemsIn, Report } from "./report";
import { Residency } from "./residency";

interface Props {
  query: ReturnType<typeof useVersions>;
  versions: VersionView[];
  aliases: readonly AliasView[];
  resident: readonly ResidentView[];
  engines: readonly EngineRef[];
  compared: readonly number[];
  onCompare: (number: number, on: boolean) => void;
  onPromote: (version: VersionView) => void;
  onRetire: (version: VersionView) => void;
}

export function Versions({
  query,
  versions,
  aliases,
  resident,
  engines,
  compared,
  onCompare,
  onPromote,
  onRetire,
}: Props) {
  const copy = useCopy();
  const toast = useToast();
  const [reported, setReported] = useState<VersionView | null>(null);
  const columns = useMemo<ColumnDef<VersionView, unknown>[]>(
    () => [
      {
        id: "compare",
        header: () => <span className="sr-only">Compare</span>,
        meta: { tight: true },
        cell: ({ row: { original: v } }) => (
          <input
            type="checkbox"
            aria-label={`Compare version ${v.number}`}
            className="size-4 accent-accent"
            checked={compared.includes(v.number)}
            onChange={(event) => onCompare(v.number, event.target.checked)}
          />
        ),
      },
      {
        header: "Version",
        cell: ({ row: { original: v } }) => (
          <div>
            <span className="font-medium tabular-nums">{v.number}</span>{" "}
            <span className="inline-flex flex-wrap gap-1">
              {aliases
                .filter((alias) => alias.version === v.number)
                .slice(0, 3)
                .map((alias) => (
                  <Chip key={alias.alias} tone={alias.alias === "default" ? "accent" : "plain"}>
                    {alias.alias}
                  </Chip>
                ))}
            </span>
            {v.digest && (
              <div className="font-mono text-xs text-ink-soft" title={v.digest}>
                {brief(v.digest, 12)}
              </div>
            )}
          </div>
        ),
      },
      {
        header: "State",
        cell: ({ row: { original: v } }) => (
          <span className="flex flex-wrap gap-1">
            <StateChip state={v.state} />
            {v.state === "ready" && engines.length > 0 && (
              <Residency
                model={v.model}
                engines={engines}
                held={resident.find((one) => one.version === v.number)}
              />
            )}
          </span>
        ),
      },
      {
        header: "Rank",
        meta: { numeric: true, wideOnly: true },
        cell: ({ row }) => row.original.rank ?? "–",
      },
      {
        header: "Size",
        meta: { numeric: true, wideOnly: true },
        cell: ({ row }) => bytes(row.original.bytes),
      },
      {
        header: "Uploaded",
        meta: { wideOnly: true },
        cell: ({ row }) => (
          <span className="whitespace-nowrap" title={dateTime(row.original.created_at)}>
            {ago(row.original.created_at)}
          </span>
        ),
      },
      {
        id: "acts",
        header: () => <span className="sr-only">Acts</span>,
        meta: { numeric: true },
        cell: ({ row: { original: v } }) => {
          const isDefault = aliases.some((alias) => alias.alias === "default" && alias.version === v.number);
          return (
            <span className="flex items-center justify-end gap-1">
              {v.state === "ready" && !isDefault && (
                <Button size="sm" onClick={() => onPromote(v)}>
                  <ArrowUpToLine aria-hidden /> Promote<span className="sr-only"> version {v.number}</span>
                </Button>
              )}
              <Menu
                trigger={
                  <Button look="quiet" size="icon" aria-label={`More for version ${v.number}`}>
                    <MoreHorizontal aria-hidden />
                  </Button>
                }
              >
                <MenuItem onSelect={() => setReported(v)}>
                  <FileSearch aria-hidden /> Validation report
                </MenuItem>
                <MenuItem
                  disabled={!v.digest}
                  onSelect={() =>
                    void copy(v.digest ?? "").then((done) => done && toast("The digest is copied."))
                  }
                >
                  <CopyIcon aria-hidden /> Copy the digest
                </MenuItem>
                <MenuLine />
                <MenuItem danger disabled={v.state !== "ready"} onSelect={() => onRetire(v)}>
                  <Trash2 aria-hidden /> Retire…
                </MenuItem>
              </Menu>
            </span>
          );
        },
      },
    ],
    [aliases, resident, engines, compared, onCompare, onPromote, onRetire, copy, toast],
  );
  return (
    <>
      <DataTable
        caption="Versions"
        columns={columns}
        rows={versions}
        rowKey={(version) => version.id}
        empty={<Empty title="No version yet">Upload one to make the name answer.</Empty>}
        footer={<More query={query} shown={versions.length} />}
      />
      {reported && (
        <Dialog open onClose={() => setReported(null)} title={`${reported.model}: validation report`} wide>
          <Report
            problems={problemsIn(reported.report, "problems")}
            warnings={problemsIn(reported.report, "warnings")}
          />
        </Dialog>
      )}
    </>
  );
}
