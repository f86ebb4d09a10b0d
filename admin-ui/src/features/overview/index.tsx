import { useQuery } from "@tanstack/react-query";
import { Link, type LinkProps } from "@tanstack/react-router";
import { CheckCircle2, OctagonAlert, Radio, RefreshCw } from "lucide-react";
import type { ReactNode } from "react";
import { lazy, Suspense } from "react";
import { PageHeader } from "@/components/layout/page";
import { Chip, StateChip } from "@/components/ui/chip";
import { Meter } from "@/components/ui/meter";
import { Panel } from "@/components/ui/panel";
import { Partial, Skeleton, View } from "@/components/ui/states";
import { useSession } from "@/features/session/session";
import { hourOf } from "@/features/usage/ranges";
import { useLive } from "@/hooks/use-live";
import { answer, api } from "@/lib/api/client";
import type { OverviewView, PaceView } from "@/lib/api/schema";
import { ago, count, milliseconds, money, percent, share } from "@/lib/format";

const day24 = { range: "24h" } as const;

const DayChart = lazy(() => import("./day-chart"));

export function OverviewPage() {
  const { me, mayManage } = useSession();
  if (!mayManage) return <InferenceOnly />;
  return <Overview tenant={me.tenant_name} />;
}

function InferenceOnly() {
  return (
    <>
      <PageHeader title="Overview" />
      <Panel>
        <p className="text-sm">
          This key may run inference but not look into the tenant. The{" "}
          <Link to="/playground" className="text-accent underline underline-offset-2">
            playground
          </Link>{" "}
          works with it.
        </p>
      </Panel>
    </>
  );
}

function Overview({ tenant }: { tenant: string }) {
  const query = useQuery({
    queryKey: ["overview"],
    queryFn: () => answer(api.GET("/api/v1/overview")),
    refetchInterval: 15_000,
  });
  const { pace, link } = useLive();
  return (
    <>
      <PageHeader
        title="Overview"
        description={<>What {tenant} runs, and what it costs.</>}
        actions={
          <Chip tone={link === "stream" ? "good" : "warn"} icon={link === "stream" ? Radio : RefreshCw}>
            {link === "stream" ? "Live" : "Every few seconds"}
          </Chip>
        }
      />
      <View query={query} rows={10}>
        {(overview) => <Tiles overview={overview} pace={pace ?? overview.pace} />}
      </View>
    </>
  );
}

function Tiles({ overview, pace }: { overview: OverviewView; pace: PaceView }) {
  const { day, limits } = overview;
  return (
    <div className="grid gap-4">
      {!pace.engine_ready && (
        <Partial>
          No engine answers: requests are refused until one is back. What was used until then is all here.
        </Partial>
      )}
      <div className="grid grid-cols-2 gap-3 lg:grid-cols-4">
        <Tile
          label="Requests now"
          link={{ to: "/limits" }}
          value={count(pace.running)}
          note={`${pace.requests_per_second.toFixed(2)} a second ended`}
        />
        <Tile
          label="Tokens a second"
          link={{ to: "/usage", search: { ...day24, measure: "tokens", at: hourOf(Date.now()) } }}
          value={count(Math.round(pace.tokens_per_second))}
          note="out, over the last minute"
        />
        <Tile
          label="First token, p50"
          link={{ to: "/adapters" }}
          value={milliseconds(pace.first_token_p50)}
          note={
            pace.first_token_samples
              ? `${pace.first_token_samples} requests in 15 min`
              : "no request in 15 min"
          }
        />
        <Tile
          label="First token, p95"
          link={{ to: "/adapters" }}
          value={milliseconds(pace.first_token_p95)}
          note="the slowest one in twenty"
        />
        <SpendTile limits={limits} cost={day.cost} />
        <Tile
          label="Prompt tokens from the cache"
          link={{ to: "/usage", search: { ...day24, measure: "tokens" } }}
          value={percent(share(day.cached_tokens, day.prompt_tokens))}
          note={`${count(day.cached_tokens)} of ${count(day.prompt_tokens)} in 24 h`}
        />
        <Tile
          label="Guesses that stood"
          link={{ to: "/usage", search: { ...day24, measure: "tokens" } }}
          value={percent(share(day.accepted_tokens, day.drafted_tokens))}
          note={
            day.drafted_tokens
              ? `${count(day.accepted_tokens)} of ${count(day.drafted_tokens)} in 24 h`
              : "no speculation in 24 h"
          }
        />
        <BooksTile overview={overview} />
      </div>
      <div className="grid gap-4 lg:grid-cols-3">
        <Panel title="Cost by adapter, last 24 hours" className="lg:col-span-2">
          <Suspense fallback={<Skeleton rows={6} />}>
            <DayChart />
          </Suspense>
        </Panel>
        <Panel title="Adapters">
          <Adapters overview={overview} />
        </Panel>
      </div>
    </div>
  );
}

interface TileProps {
  label: string;
  value: string;
  note: ReactNode;
  /** Where the number's own parts are: what it counts, over the time that it is told of. */
  link: Pick<LinkProps, "to" | "search">;
}

function Tile({ label, value, note, link }: TileProps) {
  return (
    <Link
      {...link}
      className="group flex min-w-0 flex-col rounded-xl border border-line bg-surface p-4 transition-colors hover:border-line-strong"
    >
      <span className="text-[0.8rem] text-ink-soft">{label}</span>
      <span className="mt-1 text-2xl font-semibold tracking-tight tabular-nums [overflow-wrap:anywhere]">
        {value}
      </span>
      <span className="mt-auto pt-1 text-xs text-ink-soft">{note}</span>
    </Link>
  );
}

function SpendTile({ limits, cost }: { limits: OverviewView["limits"]; cost: string }) {
  if (!limits?.budget) {
    return (
      <Tile
        label="Spent in 24 hours"
        link={{ to: "/usage", search: { ...day24, measure: "cost" } }}
        value={money(cost)}
        note="no budget is set"
      />
    );
  }
  const used = Number(limits.spent) + Number(limits.reserved);
  const budget = Number(limits.budget);
  return (
    <Tile
      label={limits.budget_period === "month" ? "Spent this month" : "Spent"}
      link={{ to: "/limits" }}
      value={money(limits.spent)}
      note={
        <>
          <Meter value={used} max={budget} label="Budget used" />
          <span className="mt-1 block">of a budget of {money(limits.budget)}</span>
        </>
      }
    />
  );
}

function BooksTile({ overview }: { overview: OverviewView }) {
  const off = overview.unreconciled_tokens;
  const note =
    off === null || off === undefined ? (
      "not checked yet"
    ) : off === 0 ? (
      <span className="inline-flex items-center gap-1 text-good">
        <CheckCircle2 aria-hidden className="size-3.5" /> the books agree, {ago(overview.reconciled_at)}
      </span>
    ) : (
      <span className="inline-flex items-center gap-1 text-bad">
        <OctagonAlert aria-hidden className="size-3.5" /> must read 0
      </span>
    );
  return (
    <Tile
      label="Unreconciled tokens"
      link={{ to: "/usage", search: { range: "90d", by: "total", measure: "tokens" } }}
      value={off === null ? "–" : count(off)}
      note={note}
    />
  );
}

function Adapters({ overview }: { overview: OverviewView }) {
  const states = Object.entries(overview.versions);
  return (
    <div className="grid gap-4 text-sm">
      <p>
        <Link to="/adapters" className="font-medium text-accent underline-offset-2 hover:underline">
          {count(overview.adapters)} adapter{overview.adapters === 1 ? "" : "s"}
        </Link>
        ,{" "}
        <Link
          to="/adapters"
          search={{ on_device: true }}
          className="font-medium text-accent underline-offset-2 hover:underline"
        >
          {count(overview.resident_versions)} version{overview.resident_versions === 1 ? "" : "s"}
        </Link>{" "}
        on an engine’s device
      </p>
      {states.length === 0 ? (
        <p className="text-ink-soft">Nothing is uploaded yet.</p>
      ) : (
        <ul className="grid gap-2">
          {states.map(([state, n]) => (
            <li key={state} className="flex items-center justify-between gap-2">
              <Link to="/adapters" search={{ state: state as "ready" }} className="rounded-full">
                <StateChip state={state} />
              </Link>
              <span className="tabular-nums">
                {count(n)} version{n === 1 ? "" : "s"}
              </span>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
