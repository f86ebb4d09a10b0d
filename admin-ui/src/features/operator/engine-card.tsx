import type { ReactNode } from "react";
import { Chip, StateChip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { roleText } from "@/features/adapters/standing";
import type { EngineReport } from "@/lib/api/schema";
import { count, percent, share } from "@/lib/format";
import { brieflyTimed } from "./engine";
import { Adapters } from "./engine-adapters";
import { HostMemory, MemoryMap, Tiers } from "./engine-memory";
import { Steps } from "./engine-steps";
import { Facts, Part } from "./facts";
import { Shares } from "./shares";

/** One engine: whether it answers, what waits and for whom, what its memory holds, and what a step takes. */
export function EngineCard({ engine }: { engine: EngineReport }) {
  return (
    <Panel
      title={engine.name}
      aside={
        <span className="flex gap-1.5">
          <Chip>{roleText(engine.role)}</Chip>
          <StateChip state={engine.state} />
        </span>
      }
    >
      {engine.epoch === null ? (
        <p className="text-sm text-ink-soft">
          It does not answer: it starts, hangs or has died. There are no numbers of it until it does.
        </p>
      ) : (
        <div className="grid gap-6">
          <Facts className="grid-cols-2 sm:grid-cols-4 lg:grid-cols-6" facts={factsOf(engine)} />
          <Shares engine={engine} />
          <div className="grid gap-6 lg:grid-cols-2 lg:gap-x-10">
            <Steps engine={engine} />
            <HostMemory engine={engine} />
            <MemoryMap engine={engine} />
            <Guesses engine={engine} />
            <Tiers engine={engine} />
            <Adapters engine={engine} />
          </div>
        </div>
      )}
    </Panel>
  );
}

/** Of the part of requests that another engine computes; nothing where each computes the whole. */
function handOffsOf({ role, hand_offs }: EngineReport): [string, ReactNode][] {
  const { sent = 0, taken = 0, late = 0, refused = 0, damaged = 0, no_room = 0, unsent = 0 } = hand_offs;
  if (role === "prefill") {
    return [
      ["Prompts handed over", count(sent)],
      ["Not handed over", count(unsent)],
    ];
  }
  const computed = late + refused + damaged + no_room;
  if (taken + computed === 0) return [];
  return [
    ["Prompts taken over", count(taken)],
    ["Computed here instead", count(computed)],
  ];
}

function factsOf(engine: EngineReport): [string, ReactNode][] {
  return [
    ["Running", count(engine.running)],
    ["Waiting", count(engine.waiting)],
    ["Tenants waiting", count(engine.tenants_waiting)],
    ["Mean step", engine.steps > 0 ? brieflyTimed(engine.step_seconds / engine.steps) : "–"],
    ["Steps", count(engine.steps)],
    ["Tokens written", count(engine.completion_tokens)],
    ["Put back for pages", count(engine.preemptions)],
    ["Put back for fairness", count(engine.yielded)],
    ["Refused as too late", count(engine.refused_early)],
    ["Rerouted", count(engine.rerouted)],
    ...handOffsOf(engine),
    ["KV pages evicted", count(engine.pages_evicted)],
    ["Adapters evicted", count(engine.adapters_evicted)],
  ];
}

function Guesses({ engine }: { engine: EngineReport }) {
  const tried = engine.guesses.filter((one) => one.drafted_tokens > 0);
  return (
    <Part title="Guesses that stood, by proposer">
      {tried.length === 0 ? (
        <p className="text-xs text-ink-soft">This engine has guessed nothing.</p>
      ) : (
        <ul className="grid gap-1 text-sm">
          {tried.map((one) => (
            <li key={`${one.proposer} ${one.adapted}`} className="flex justify-between gap-4">
              <span>
                {one.proposer}{" "}
                <span className="text-ink-soft">{one.adapted ? "with an adapter" : "for the base"}</span>
              </span>
              <span className="tabular-nums">
                {percent(share(one.accepted_tokens, one.drafted_tokens))}{" "}
                <span className="text-ink-soft">of {count(one.drafted_tokens)}</span>
              </span>
            </li>
          ))}
        </ul>
      )}
    </Part>
  );
}
