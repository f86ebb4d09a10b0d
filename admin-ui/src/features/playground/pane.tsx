import { Loader2, OctagonAlert, X } from "lucide-react";
import { useState } from "react";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { Combobox } from "@/components/ui/combobox";
import { cn } from "@/lib/cn";
import { count, milliseconds, money, percent, share } from "@/lib/format";
import { useModels } from "./models";
import type { Outcome } from "./run";

interface Props {
  model: string;
  outcome: Outcome | undefined;
  onModel: (model: string) => void;
  onRemove?: () => void;
}

export function Pane({ model, outcome, onModel, onRemove }: Props) {
  const [text, setText] = useState("");
  const models = useModels(text);
  return (
    <section
      aria-label={`Answer of ${model}`}
      className="flex min-h-64 min-w-0 flex-col rounded-xl border border-line bg-surface"
    >
      <div className="flex items-center gap-2 border-b border-line p-2">
        <Combobox
          label="Model"
          value={model}
          choices={models.data ?? []}
          text={text}
          onText={setText}
          onChange={onModel}
          asTyped={(name) => `${name}, as typed (name:version or name@alias)`}
          className="min-w-0 flex-1 border-transparent font-medium"
        />
        {outcome?.version && <Chip tone="accent">version {outcome.version}</Chip>}
        {onRemove && (
          <Button look="quiet" size="icon" aria-label={`Remove ${model}`} onClick={onRemove}>
            <X aria-hidden />
          </Button>
        )}
      </div>
      <div className="flex-1 p-4">
        <Text outcome={outcome} />
      </div>
      {outcome && outcome.stage !== "waiting" && <Facts outcome={outcome} />}
    </section>
  );
}

function Text({ outcome }: { outcome: Outcome | undefined }) {
  if (!outcome) return <p className="text-sm text-ink-soft">The answer appears here.</p>;
  return (
    <>
      <p
        aria-live={outcome.stage === "done" ? "polite" : "off"}
        className="text-[0.95rem] leading-relaxed whitespace-pre-wrap [overflow-wrap:anywhere]"
      >
        {outcome.text}
      </p>
      {(outcome.stage === "waiting" || outcome.stage === "streaming") && (
        <Loader2 aria-label="Generating" className="mt-1 size-4 animate-spin text-ink-soft" />
      )}
      {outcome.stage === "failed" && (
        <div role="alert" className={cn("text-sm text-bad", outcome.text && "mt-2")}>
          <p className="flex gap-2">
            <OctagonAlert aria-hidden className="mt-0.5 size-4 shrink-0" />
            {outcome.text ? `It broke off here: ${outcome.error}` : outcome.error}
          </p>
          {outcome.version !== null || outcome.text ? <Charged outcome={outcome} /> : null}
        </div>
      )}
      {outcome.stage === "stopped" && (
        <p className="mt-2 text-xs text-ink-soft">Stopped by you. What was generated is charged.</p>
      )}
      {outcome.finish === "length" && (
        <p className="mt-2 text-xs text-ink-soft">Cut at the most tokens allowed.</p>
      )}
    </>
  );
}

const HINTS: Record<string, string> = {
  "First token": "As this browser saw it, the network included.",
  "Overall speed":
    "Completion tokens over the whole request by the server's clock, queue and prompt included.",
};

function Charged({ outcome }: { outcome: Outcome }) {
  return (
    <p className="mt-1 pl-6 text-xs text-ink-soft">
      {outcome.cost === null
        ? "The engine's journal settles what it had counted by then; the charge will stand under Usage."
        : `Charged: ${money(outcome.cost)}, for what the engine had counted by then.`}
    </p>
  );
}

function Facts({ outcome }: { outcome: Outcome }) {
  const { usage } = outcome;
  const guessed = usage ? usage.accepted + usage.rejected : 0;
  const facts: [string, string][] = [
    ["First token", milliseconds(outcome.firstTokenS)],
    ["Overall speed", outcome.speed ? `${count(Math.round(outcome.speed))} tok/s` : "–"],
    ["Prompt", usage ? count(usage.prompt) : "–"],
    ["Cached", usage ? percent(share(usage.cached, usage.prompt) ?? 0) : "–"],
    ["Completion", usage ? count(usage.completion) : "–"],
    ["Guesses stood", guessed > 0 && usage ? `${usage.accepted} of ${guessed}` : "–"],
    ["Cost", outcome.cost !== null ? money(outcome.cost) : "–"],
  ];
  return (
    <dl className="grid grid-cols-[repeat(auto-fit,minmax(5.5rem,1fr))] gap-x-4 gap-y-2 border-t border-line px-4 py-3">
      {facts.map(([label, value]) => (
        <div key={label} title={HINTS[label]}>
          <dt className="text-xs text-ink-soft">{label}</dt>
          <dd className="text-sm font-medium tabular-nums">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
