import type { ColumnDef } from "@tanstack/react-table";
import { Infinity as Unlimited } from "lucide-react";
import type { ReactNode } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { PageHeader } from "@/components/layout/page";
import { Meter } from "@/components/ui/meter";
import { Panel } from "@/components/ui/panel";
import { View } from "@/components/ui/states";
import { useSession } from "@/features/session/session";
import { useLive } from "@/hooks/use-live";
import { answer, api } from "@/lib/api/client";
import type { HeadroomView } from "@/lib/api/schema";
import { count, money } from "@/lib/format";
import { Wallet } from "./wallet";

export function LimitsPage() {
  useLive();
  const query = usePages<HeadroomView>(
    ["limits"],
    (after) => answer(api.GET("/api/v1/limits", { params: { query: { limit: 50, after } } })),
    { refetchInterval: 5_000 },
  );
  return (
    <>
      <PageHeader
        title="Limits and budget"
        description="What admission decides by, and what is left of it now. The operator sets them."
      />
      <div className="grid gap-4">
        <View query={query} rows={6}>
          {(rooms) => {
            const whole = rooms.find((room) => room.key === null);
            const keys = rooms.filter((room) => room.key !== null);
            return (
              <>
                {whole && <Rooms room={whole} />}
                <AtTheLimit />
                {keys.length > 0 && (
                  <Panel title="Keys with limits of their own" flush>
                    <DataTable
                      caption="Limits of keys"
                      columns={KEY_COLUMNS}
                      rows={keys}
                      rowKey={(room) => room.key ?? ""}
                      footer={<More query={query} shown={keys.length} />}
                    />
                  </Panel>
                )}
              </>
            );
          }}
        </View>
        <Wallet />
      </div>
    </>
  );
}

export function Rooms({ room }: { room: HeadroomView }) {
  const committed = Number(room.spent) + Number(room.reserved);
  return (
    <div className="grid gap-4 md:grid-cols-3">
      <Room title="At once" limit={room.concurrency}>
        <Used value={room.running} max={room.concurrency} label="Requests at once" unit="running" />
      </Room>
      <Room title="A minute" limit={room.requests_per_minute}>
        <Used
          value={(room.requests_per_minute ?? 0) - (room.requests_left ?? 0)}
          max={room.requests_per_minute}
          label="Requests a minute"
          unit="used of this minute"
        />
      </Room>
      <Room
        title={room.budget_period === "month" ? "Budget, this month" : "Budget, in all"}
        limit={room.budget}
      >
        <p className="text-2xl font-semibold tracking-tight tabular-nums">
          {money(room.spent)}
          {room.budget !== null && (
            <span className="text-base font-normal text-ink-soft"> of {money(room.budget)}</span>
          )}
        </p>
        {room.budget !== null && (
          <div className="mt-2">
            <Meter value={committed} max={Number(room.budget)} label="Budget used" />
          </div>
        )}
        <p className="mt-1.5 text-xs text-ink-soft">
          {Number(room.reserved) > 0
            ? `${money(room.reserved)} held for requests under way`
            : "nothing held for requests under way"}
          {room.budget_period !== "month" && `; ${money(room.spent_this_month)} this month`}
        </p>
      </Room>
    </div>
  );
}

const REFUSALS = [
  {
    limit: "At once",
    status: 429,
    code: "concurrency_limit_exceeded",
    next: "Retry-After says when: as soon as one of the running requests is done.",
  },
  {
    limit: "A minute",
    status: 429,
    code: "rate_limit_exceeded",
    next: "Retry-After says when the next one is let in. OpenAI's clients wait and try again by themselves.",
  },
  {
    limit: "Budget",
    status: 429,
    code: "insufficient_quota",
    next: "Trying again does not help, and x-should-retry says so. A smaller max_tokens may still fit.",
  },
] as const;

/** What a client sees at each limit, and whom a person asks for more. */
function AtTheLimit() {
  const { installation } = useSession();
  return (
    <Panel title="At the limit">
      <p className="text-sm">
        A request beyond a limit is refused before any token is computed, and costs nothing. For more, ask{" "}
        <Support support={installation.support} />.
      </p>
      <dl className="mt-3 grid gap-3 text-sm md:grid-cols-3">
        {REFUSALS.map((one) => (
          <div key={one.code}>
            <dt className="font-medium">{one.limit}</dt>
            <dd>
              <code className="font-mono text-xs [overflow-wrap:anywhere]">
                {one.status} {one.code}
              </code>
              <p className="mt-0.5 text-ink-soft">{one.next}</p>
            </dd>
          </div>
        ))}
      </dl>
    </Panel>
  );
}

function Support({ support }: { support: string | null }) {
  if (!support) return <>the operator of this installation</>;
  const href = support.includes("://") ? support : `mailto:${support}`;
  return (
    <a
      href={href}
      rel="noreferrer"
      className="text-accent underline underline-offset-2 [overflow-wrap:anywhere]"
    >
      {support}
    </a>
  );
}

function Room({
  title,
  limit,
  children,
}: {
  title: string;
  limit: number | string | null;
  children: ReactNode;
}) {
  return (
    <Panel
      title={title}
      aside={
        limit === null ? (
          <span className="flex items-center gap-1 text-xs text-ink-soft">
            <Unlimited aria-hidden className="size-4" /> no limit
          </span>
        ) : undefined
      }
    >
      {children}
    </Panel>
  );
}

function Used({
  value,
  max,
  label,
  unit,
}: {
  value: number;
  max: number | null;
  label: string;
  unit: string;
}) {
  if (max === null) {
    return (
      <>
        <p className="text-2xl font-semibold tracking-tight tabular-nums">
          {unit === "running" ? count(value) : "–"}
        </p>
        <p className="mt-1.5 text-xs text-ink-soft">
          {unit === "running" ? unit : "not counted without a limit"}
        </p>
      </>
    );
  }
  return (
    <>
      <p className="text-2xl font-semibold tracking-tight tabular-nums">
        {count(value)}
        <span className="text-base font-normal text-ink-soft"> of {count(max)}</span>
      </p>
      <div className="mt-2">
        <Meter value={value} max={max} label={label} />
      </div>
      <p className="mt-1.5 text-xs text-ink-soft">
        {unit}; {count(Math.max(0, max - value))} left
      </p>
    </>
  );
}

const KEY_COLUMNS: ColumnDef<HeadroomView, unknown>[] = [
  { header: "Key", cell: ({ row }) => <span className="font-medium">{row.original.name}</span> },
  {
    header: "At once",
    meta: { numeric: true },
    cell: ({ row: { original: r } }) =>
      `${count(r.running)}${r.concurrency === null ? "" : ` of ${count(r.concurrency)}`}`,
  },
  {
    header: "Left this minute",
    meta: { numeric: true },
    cell: ({ row: { original: r } }) =>
      r.requests_left === null ? "no limit" : `${r.requests_left} of ${r.requests_per_minute}`,
  },
  {
    header: "Spent",
    meta: { numeric: true },
    cell: ({ row: { original: r } }) =>
      `${money(r.spent)}${r.budget === null ? "" : ` of ${money(r.budget)}`}`,
  },
];
