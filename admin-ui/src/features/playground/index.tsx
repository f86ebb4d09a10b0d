import { useNavigate } from "@tanstack/react-router";
import { Columns2, Play, Square } from "lucide-react";
import { Tabs } from "radix-ui";
import { type FormEvent, type KeyboardEvent, useEffect, useRef, useState } from "react";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Copy } from "@/components/ui/copy";
import { Field, Input, Textarea } from "@/components/ui/input";
import { Panel } from "@/components/ui/panel";
import { View } from "@/components/ui/states";
import { cn } from "@/lib/cn";
import { useModels } from "./models";
import { Pane } from "./pane";
import { beside, changed, MOST, type PaneOf, panesOf, without } from "./panes";
import { bodyOf, type Outcome, run, WAITING } from "./run";
import { type Ask, type Language, snippet } from "./snippets";

const UNDER_WAY: ReadonlySet<string> = new Set(["waiting", "streaming"]);

export function PlaygroundPage({ chosen }: { chosen: readonly string[] }) {
  const query = useModels();
  return (
    <>
      <PageHeader
        title="Playground"
        description="One prompt, several adapters or versions side by side. Every run is a real request and is charged like one."
      />
      <View query={query} rows={8}>
        {(models) => <Playground models={models} chosen={chosen} />}
      </View>
    </>
  );
}

function Playground({ models, chosen }: { models: string[]; chosen: readonly string[] }) {
  const navigate = useNavigate();
  const first = models[1] ?? models[0] ?? "";
  const wanted = chosen.length > 0 ? chosen : [first];
  const [kept, setKept] = useState<readonly PaneOf[]>([]);
  const panes = panesOf(kept, wanted);
  const [ask, setAsk] = useState<Ask>({ system: "", prompt: "", maxTokens: 128, temperature: 0, seed: null });
  const [outcomes, setOutcomes] = useState<Readonly<Record<number, Outcome>>>({});
  const [error, setError] = useState<string | null>(null);
  const runs = useRef(new Map<number, AbortController>());
  const running = panes.some(({ id }) => UNDER_WAY.has(outcomes[id]?.stage ?? ""));

  // Also where the URL took a pane away, by the browser's Back.
  useEffect(() => {
    if (panes !== kept) setKept(panes);
    for (const [id, run] of runs.current) if (!panes.some((pane) => pane.id === id)) forget(id, run);
  });
  useEffect(() => {
    const begun = runs.current;
    return () => {
      for (const [id, run] of begun) {
        begun.delete(id);
        run.abort();
      }
    };
  }, []);

  function forget(id: number, run: AbortController) {
    runs.current.delete(id);
    run.abort();
  }

  function setPanes(next: readonly PaneOf[]) {
    setKept(next);
    void navigate({ to: "/playground", search: { models: next.map((pane) => pane.model) } });
  }

  function go(event?: FormEvent) {
    event?.preventDefault();
    if (running) return;
    if (!ask.prompt.trim()) {
      setError("Write a message first.");
      return;
    }
    setError(null);
    for (const pane of panes) begin(pane);
  }

  function begin({ id, model }: PaneOf) {
    const mine = new AbortController();
    runs.current.set(id, mine);
    setOutcomes((old) => ({ ...old, [id]: WAITING }));
    void run(
      ask,
      model,
      (change) => {
        if (runs.current.get(id) !== mine) return false;
        setOutcomes((old) => ({ ...old, [id]: { ...(old[id] ?? WAITING), ...change } }));
        return true;
      },
      mine.signal,
    );
  }

  function stop() {
    for (const run of runs.current.values()) run.abort();
  }

  function keys(event: KeyboardEvent) {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) go();
  }

  const model = panes[0]?.model ?? first;
  return (
    <div className="grid gap-4 xl:grid-cols-[20rem_minmax(0,1fr)]">
      <Panel className="self-start">
        <form onSubmit={go} onKeyDown={keys} className="grid gap-4">
          <Field label="System" hint="Optional.">
            {(field) => (
              <Textarea
                {...field}
                rows={2}
                value={ask.system}
                onChange={(e) => setAsk({ ...ask, system: e.target.value })}
              />
            )}
          </Field>
          <Field label="Message" error={error}>
            {(field) => (
              <Textarea
                {...field}
                rows={5}
                value={ask.prompt}
                onChange={(e) => setAsk({ ...ask, prompt: e.target.value })}
              />
            )}
          </Field>
          <div className="grid grid-cols-3 gap-2">
            <Field label="Max tokens">
              {(field) => (
                <Input
                  {...field}
                  type="number"
                  min={1}
                  max={4096}
                  value={ask.maxTokens}
                  onChange={(e) => setAsk({ ...ask, maxTokens: Math.max(1, e.target.valueAsNumber || 1) })}
                />
              )}
            </Field>
            <Field label="Temp.">
              {(field) => (
                <Input
                  {...field}
                  type="number"
                  min={0}
                  max={2}
                  step={0.1}
                  value={ask.temperature}
                  onChange={(e) =>
                    setAsk({ ...ask, temperature: Math.min(2, Math.max(0, e.target.valueAsNumber || 0)) })
                  }
                />
              )}
            </Field>
            <Field label="Seed">
              {(field) => (
                <Input
                  {...field}
                  type="number"
                  min={0}
                  step={1}
                  placeholder="any"
                  value={ask.seed ?? ""}
                  onChange={(e) =>
                    setAsk({
                      ...ask,
                      seed: Number.isNaN(e.target.valueAsNumber) ? null : Math.trunc(e.target.valueAsNumber),
                    })
                  }
                />
              )}
            </Field>
          </div>
          <div className="flex flex-wrap gap-2">
            {running ? (
              <Button onClick={stop}>
                <Square aria-hidden /> Stop
              </Button>
            ) : (
              <Button type="submit" look="solid">
                <Play aria-hidden /> Run <kbd className="font-sans text-xs opacity-80">⌘↵</kbd>
              </Button>
            )}
            <Button
              disabled={panes.length >= MOST}
              onClick={() =>
                setPanes(
                  beside(panes, models.find((one) => !panes.some((pane) => pane.model === one)) ?? first),
                )
              }
            >
              <Columns2 aria-hidden /> Beside
            </Button>
          </div>
        </form>
      </Panel>
      <div className="grid min-w-0 content-start gap-4">
        <div className={cn("grid gap-4", panes.length > 1 && "md:grid-cols-2")}>
          {panes.map((pane) => (
            <Pane
              key={pane.id}
              model={pane.model}
              outcome={outcomes[pane.id]}
              onModel={(next) => setPanes(changed(panes, pane.id, next))}
              onRemove={panes.length > 1 ? () => setPanes(without(panes, pane.id)) : undefined}
            />
          ))}
        </div>
        <Snippets ask={ask} model={model} />
      </div>
    </div>
  );
}

const LANGUAGES: readonly [Language, string][] = [
  ["curl", "curl"],
  ["python", "Python"],
  ["typescript", "TypeScript"],
];

function Snippets({ ask, model }: { ask: Ask; model: string }) {
  const [language, setLanguage] = useState<Language>("curl");
  const text = snippet(language, ask, model, location.origin, bodyOf(ask, model));
  return (
    <Tabs.Root value={language} onValueChange={(next) => setLanguage(next as Language)}>
      <Panel
        flush
        aside={
          <>
            <Tabs.List aria-label="The same call" className="flex gap-1">
              {LANGUAGES.map(([value, label]) => (
                <Tabs.Trigger
                  key={value}
                  value={value}
                  className="rounded-md px-2.5 py-1 text-sm text-ink-soft hover:text-ink data-[state=active]:bg-accent-wash data-[state=active]:font-medium data-[state=active]:text-accent"
                >
                  {label}
                </Tabs.Trigger>
              ))}
            </Tabs.List>
            <Copy text={text} />
          </>
        }
      >
        <Tabs.Content value={language}>
          <pre className="overflow-x-auto p-4 font-mono text-xs leading-relaxed" {...{ tabIndex: 0 }}>
            {text}
          </pre>
        </Tabs.Content>
      </Panel>
    </Tabs.Root>
  );
}
