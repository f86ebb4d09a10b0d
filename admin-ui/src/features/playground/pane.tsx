import { Loader2, OctagonAlert, X } from "lucide-react";
import { useState } from "react";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { Combobox } from "@/components/ui/combobox";
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
  if (outcome.stage === "failed") {
    return (
      <p role="alert" className="flex gap-2 text-sm text-bad">
        <OctagonAlert aria-hidden className="mt-0.5 size-4 shrink-0" /> {outcome.error}
      </p>
    );
  }
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
      {outcome.stage === "stopped" && (
        <p className="mt-2 text-xs text-ink-soft">Stopped by you. What was generated is charged.</p>
      )}
      {outcome.finish === "length" && (
        <p className="mt-2 text-xs text-ink-soft">Cut at the most tokens allowed.</p>
      )}
    </>
  );
}

function Facts({ outcome }: { outcome: Outcome }) {
  const { usage } = outcome;
  const generating =
    outcome.wholeS !== null && outcome.firstTokenS !== null ? outcome.wholeS - outcome.firstTokenS : null;
  const speed = usage && generating && usage.completion > 1 ? (usage.completion - 1) / generating : null;
  const guessed = usage ? usage.accepted + usage.rejected : 0;
  const facts: [string, string][] = [
    ["First token", milliseconds(outcome.firstTokenS)],
    ["Speed", speed ? `${count(Math.round(speed))} tok/s` : "–"],
    ["Prompt", usage ? count(usage.prompt) : "–"],
    ["Cached", usage ? percent(share(usage.cached, usage.prompt) ?? 0) : "–"],
    ["Completion", usage ? count(usage.completion) : "–"],
    ["Guesses stood", guessed > 0 && usage ? `${usage.accepted} of ${guessed}` : "–"],
    ["Cost", outcome.cost !== null ? money(outcome.cost) : "–"],
  ];
  return (
    <dl className="grid grid-cols-[repeat(auto-fit,minmax(5.5rem,1fr))] gap-x-4 gap-y-2 border-t border-line px-4 py-3">
      {facts.map(([label, value]) => (
        <div key={label}>
          <dt className="text-xs text-ink-soft">{label}</dt>
          <dd className="text-sm font-medium tabular-nums">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
