import { Link, useNavigate } from "@tanstack/react-router";
import type { ColumnDef } from "@tanstack/react-table";
import { Loader2, Pin, X } from "lucide-react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useLive } from "@/hooks/use-live";
import type { SessionSummary } from "@/lib/api/schema";
import { ago, brief, count, dateTime, money, percent, share, span } from "@/lib/format";
import { useSessions } from "./sessions";

const COLUMNS: ColumnDef<SessionSummary, unknown>[] = [
  {
    header: "Session",
    cell: ({ row: { original: s } }) => (
      <div className="min-w-0">
        <Link
          to="/sessions/$id"
          params={{ id: s.id }}
          className="font-mono text-xs text-accent underline-offset-2 hover:underline"
        >
          {brief(s.id, 6)}…{s.id.slice(-6)}
        </Link>
        <div className="text-xs text-ink-soft">
          {s.kind === "conversation" ? "conversation" : "chain of responses"}
        </div>
      </div>
    ),
  },
  {
    header: "Model",
    cell: ({ row: { original: s } }) => (
      <span className="flex flex-wrap items-center gap-1.5">
        <span className="font-medium">{s.model ?? "none yet"}</span>
        {s.version !== null && <Chip tone="plain">version {s.version}</Chip>}
        <Chip>{s.version_policy === "pin" ? "stays on it" : "follows the alias"}</Chip>
      </span>
    ),
  },
  { header: "Turns", meta: { numeric: true, wideOnly: true }, cell: ({ row }) => count(row.original.turns) },
  {
    header: "From the cache",
    meta: { numeric: true, wideOnly: true },
    cell: ({ row: { original: s } }) => percent(share(s.cached_tokens, s.prompt_tokens)),
  },
  {
    header: "Cache kept for",
    meta: { wideOnly: "very" },
    cell: ({ row: { original: s } }) => (
      <span className="inline-flex items-center gap-1.5 whitespace-nowrap">
        {s.cache_ttl_s > 0 ? span(s.cache_ttl_s) : "not kept"}
        {s.cache_pinned && (
          <Chip tone="accent" icon={Pin}>
            cache pinned
          </Chip>
        )}
      </span>
    ),
  },
  { header: "Cost", meta: { numeric: true, kept: true }, cell: ({ row }) => money(row.original.cost) },
  {
    header: "Last turn",
    meta: { wideOnly: true },
    cell: ({ row: { original: s } }) =>
      s.busy ? (
        <Chip tone="accent" icon={Loader2}>
          running
        </Chip>
      ) : (
        <span title={dateTime(s.last_at)}>{ago(s.last_at)}</span>
      ),
  },
];

export function SessionsPage({ model }: { model: string | undefined }) {
  const navigate = useNavigate();
  useLive();
  const query = useSessions(model);
  return (
    <>
      <PageHeader
        title="Sessions"
        description="Conversations and chains of responses: what their turns found in the cache, and how long it is kept."
        actions={
          model && (
            <Button
              onClick={() => void navigate({ to: "/sessions", search: {} })}
              aria-label={`Remove the filter ${model}`}
            >
              <span className="max-w-52 truncate">{model}</span> <X aria-hidden />
            </Button>
          )
        }
      />
      <Panel flush>
        <View query={query}>
          {(sessions) => (
            <DataTable
              caption="Sessions"
              columns={COLUMNS}
              rows={sessions}
              rowKey={(session) => session.id}
              empty={
                <Empty title={model ? `No session with ${model}` : "No sessions yet"}>
                  They begin with a conversation (<code className="font-mono text-xs">/v1/conversations</code>
                  ) or a stored response (<code className="font-mono text-xs">/v1/responses</code>).
                </Empty>
              }
              footer={<More query={query} shown={sessions.length} />}
            />
          )}
        </View>
      </Panel>
    </>
  );
}
