import { Link, useNavigate } from "@tanstack/react-router";
import { GitFork, Pin, PinOff, Trash2 } from "lucide-react";
import { useState } from "react";
import { Confirm } from "@/components/confirm";
import { More } from "@/components/data-table/more";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Chip, StateChip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Segments } from "@/components/ui/segments";
import { Select } from "@/components/ui/select";
import { Empty, Failed, Skeleton, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { useLive } from "@/hooks/use-live";
import type { SessionPatch, SessionSummary, TurnView } from "@/lib/api/schema";
import { ago, brief, count, dateTime, money, percent, share, span } from "@/lib/format";
import { useSessionActs, useSessionOf, useTurns } from "./sessions";
import { TokenBar } from "./token-bar";

const TTLS = [
  { value: "0", label: "Not kept" },
  { value: "300", label: "5 minutes" },
  { value: "1800", label: "30 minutes" },
  { value: "43200", label: "12 hours" },
] as const;
const POLICIES = [
  { value: "pin", label: "Stay on the version" },
  { value: "follow", label: "Follow the alias" },
] as const;

/** from: of a fork, the session that it was forked from. */
export function SessionDetail({ id, from }: { id: string; from: string | undefined }) {
  useLive();
  const query = useSessionOf(id);
  if (query.data) return <Detail session={query.data as SessionSummary} from={from} />;
  if (query.error)
    return (
      <>
        <PageHeader title="Session" />
        <Failed error={query.error} onRetry={() => void query.refetch()} />
      </>
    );
  return <Skeleton rows={8} />;
}

function Detail({ session, from }: { session: SessionSummary; from: string | undefined }) {
  const navigate = useNavigate();
  const toast = useToast();
  const acts = useSessionActs(session.id);
  const turns = useTurns(session.id);
  const [removing, setRemoving] = useState(false);
  const name = brief(session.id, 12);

  async function attempt(act: () => Promise<unknown>, done: string) {
    try {
      await act();
      toast(done);
    } catch (failure) {
      toast(failure instanceof Error ? failure.message : "It did not work.", "bad");
    }
  }
  const change = (body: SessionPatch, done: string) => void attempt(() => acts.change(body), done);

  const ttl = String(session.cache_ttl_s);
  const ttls = TTLS.some((one) => one.value === ttl)
    ? TTLS
    : [{ value: ttl, label: span(session.cache_ttl_s) }, ...TTLS];
  return (
    <>
      <PageHeader
        title={session.kind === "conversation" ? "Conversation" : "Chain of responses"}
        description={
          <>
            <span className="block font-mono text-xs [overflow-wrap:anywhere]">
              {session.conversation ?? session.id}
            </span>
            <span>
              Since {dateTime(session.created_at)}, last turn {ago(session.last_at)}, forgotten{" "}
              {ago(session.expires_at)}
            </span>
          </>
        }
        actions={
          <>
            <Button
              onClick={() =>
                change(
                  { cache_pinned: !session.cache_pinned },
                  session.cache_pinned ? "Its cache may give way again." : "Its cache gives way last.",
                )
              }
            >
              {session.cache_pinned ? <PinOff aria-hidden /> : <Pin aria-hidden />}{" "}
              {session.cache_pinned ? "Unpin the cache" : "Pin the cache"}
            </Button>
            <Button look="danger" onClick={() => setRemoving(true)}>
              <Trash2 aria-hidden /> Delete
            </Button>
          </>
        }
      />
      <div className="grid gap-4 xl:grid-cols-[minmax(0,1fr)_22rem]">
        <Panel title="Turns, newest first" flush className="self-start">
          <View query={turns}>
            {(rows) =>
              rows.length === 0 ? (
                <Empty title="No turn of its own yet">
                  {from && (
                    <>
                      It remembers what was said up to the turn of{" "}
                      <Link
                        to="/sessions/$id"
                        params={{ id: from }}
                        className="text-accent underline underline-offset-2"
                      >
                        the session it was forked from
                      </Link>
                      .
                    </>
                  )}
                </Empty>
              ) : (
                <>
                  <ol>
                    {rows.map((turn) => (
                      <Turn
                        key={turn.id}
                        turn={turn}
                        most={Math.max(...rows.map((one) => one.prompt_tokens + one.generated_tokens))}
                        onFork={() =>
                          void attempt(async () => {
                            const made = await acts.fork(turn.id);
                            await navigate({
                              to: "/sessions/$id",
                              params: { id: made.id },
                              search: { from: session.id },
                            });
                          }, "Forked: this one goes on from that turn.")
                        }
                      />
                    ))}
                  </ol>
                  <More query={turns} shown={rows.length} />
                </>
              )
            }
          </View>
        </Panel>
        <div className="grid content-start gap-4">
          <Panel title="In all">
            <dl className="grid grid-cols-2 gap-4 text-sm">
              {(
                [
                  ["Turns", count(session.turns)],
                  ["Cost", money(session.cost)],
                  ["From the cache", percent(share(session.cached_tokens, session.prompt_tokens))],
                  ["Computed", count(session.computed_tokens)],
                  ["Generated", count(session.generated_tokens)],
                  ["Model", session.model ?? "none yet"],
                ] as const
              ).map(([label, value]) => (
                <div key={label}>
                  <dt className="text-xs text-ink-soft">{label}</dt>
                  <dd className="font-semibold tabular-nums [overflow-wrap:anywhere]">{value}</dd>
                </div>
              ))}
            </dl>
          </Panel>
          <Panel title="Between turns">
            <div className="grid gap-4 text-sm">
              <div className="flex items-center justify-between gap-3">
                <span>Keep its cache</span>
                <Select
                  label="Keep its cache"
                  value={ttl}
                  onChange={(next) =>
                    change({ cache_ttl_s: Number(next) }, "Kept as you chose, from the next turn on.")
                  }
                  choices={ttls}
                />
              </div>
              <div className="grid gap-1.5">
                <span>When its adapter moves on</span>
                <Segments
                  label="When its adapter moves on"
                  value={session.version_policy}
                  onChange={(next) => change({ version_policy: next }, "Changed, from the next turn on.")}
                  choices={POLICIES}
                />
              </div>
            </div>
          </Panel>
        </div>
      </div>
      {removing && (
        <Confirm
          title="Delete this session"
          name={name}
          act="Delete for good"
          impact={
            <>
              <p>
                Its {count(session.turns)} turns and their text are forgotten, and its cache is dropped
                everywhere.
              </p>
              <p className="mt-1">
                Its usage stays in the books.{session.busy ? " A turn is running now." : ""}
              </p>
            </>
          }
          onClose={() => setRemoving(false)}
          onAct={async () => {
            await acts.remove();
            toast("The session is deleted.");
            await navigate({ to: "/sessions" });
          }}
        />
      )}
    </>
  );
}

function Turn({ turn, most, onFork }: { turn: TurnView; most: number; onFork: () => void }) {
  return (
    <li className="grid gap-x-6 gap-y-2 border-b border-line px-4 py-3 last:border-b-0 sm:grid-cols-[11rem_minmax(0,1fr)_auto] sm:items-center">
      <div className="min-w-0 text-sm">
        <div className="flex items-center gap-2 font-medium">
          <span className="truncate">{turn.model}</span>
          {turn.version !== null && <Chip>v{turn.version}</Chip>}
        </div>
        <div className="text-xs text-ink-soft" title={dateTime(turn.created_at)}>
          {ago(turn.created_at)}, {money(turn.cost)}
          {!turn.in_conversation && ", a branch"}
        </div>
      </div>
      <TokenBar
        cached={turn.cached_tokens}
        host={turn.cached_host_tokens}
        disk={turn.cached_disk_tokens}
        computed={turn.computed_tokens}
        generated={turn.generated_tokens}
        most={most}
      />
      <div className="flex items-center gap-2">
        {turn.status !== "completed" && <StateChip state={turn.status} />}
        <Button size="sm" onClick={onFork}>
          <GitFork aria-hidden /> Fork
          <span className="sr-only"> from the turn of {dateTime(turn.created_at)}</span>
        </Button>
      </div>
    </li>
  );
}
