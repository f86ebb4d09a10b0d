import { ArrowRight, Plus, Undo2 } from "lucide-react";
import { useState } from "react";
import { Actor } from "@/components/actor";
import { Button } from "@/components/ui/button";
import { Panel } from "@/components/ui/panel";
import { View } from "@/components/ui/states";
import type { AliasMove, RegistrySchemasAdapterView } from "@/lib/api/schema";
import { cn } from "@/lib/cn";
import { ago, dateTime } from "@/lib/format";
import { useMoves } from "./adapters";

interface Props {
  adapter: RegistrySchemasAdapterView;
  onMove: (alias: string, version?: number) => void;
}

/** Which version each alias answers with, and who moved it when and why; the version before is one click away. */
export function Aliases({ adapter, onMove }: Props) {
  const aliases = adapter.aliases ?? [];
  const [chosen, setChosen] = useState("default");
  const shown = aliases.some((one) => one.alias === chosen) ? chosen : aliases[0]?.alias;
  return (
    <div className="grid content-start gap-4">
      <Panel
        title="Aliases"
        aside={
          <Button size="sm" onClick={() => onMove("")}>
            <Plus aria-hidden /> Alias
          </Button>
        }
      >
        {aliases.length === 0 ? (
          <p className="text-sm text-ink-soft">None yet: the first ready version becomes default.</p>
        ) : (
          <ul className="grid gap-1">
            {aliases.map((alias) => (
              <li key={alias.alias} className="flex items-center gap-2">
                <button
                  type="button"
                  aria-pressed={alias.alias === shown}
                  onClick={() => setChosen(alias.alias)}
                  className={cn(
                    "flex min-w-0 flex-1 items-center gap-2 rounded-md px-2 py-1.5 text-left text-sm hover:bg-raised",
                    alias.alias === shown && "bg-accent-wash text-accent",
                  )}
                >
                  <span className="truncate font-medium">{alias.alias}</span>
                  <ArrowRight aria-hidden className="size-3.5 shrink-0" />
                  <span className="tabular-nums">{alias.version}</span>
                </button>
                <Button size="sm" look="quiet" onClick={() => onMove(alias.alias)}>
                  Move<span className="sr-only"> {alias.alias}</span>
                </Button>
              </li>
            ))}
          </ul>
        )}
      </Panel>
      {shown && <History adapter={adapter} alias={shown} onMove={onMove} />}
    </div>
  );
}

function History({ adapter, alias, onMove }: Props & { alias: string }) {
  const query = useMoves(adapter.name, alias);
  const last = query.data?.[0];
  const before = last?.from_version;
  return (
    <Panel
      title={`History of ${alias}`}
      aside={
        before ? (
          <Button size="sm" onClick={() => onMove(alias, before)}>
            <Undo2 aria-hidden /> Roll back to {before}
          </Button>
        ) : undefined
      }
    >
      <View query={query} rows={3}>
        {(moves) => (
          <ol className="grid gap-3">
            {moves.map((move) => (
              <Move key={move.id} move={move} />
            ))}
          </ol>
        )}
      </View>
      {query.hasNextPage && (
        <Button size="sm" look="quiet" className="mt-3" onClick={() => void query.fetchNextPage()}>
          Earlier
        </Button>
      )}
    </Panel>
  );
}

function Move({ move }: { move: AliasMove }) {
  return (
    <li className="border-l-2 border-line pl-3 text-sm">
      <div className="flex items-center gap-1.5 font-medium tabular-nums">
        {move.from_version ?? "–"} <ArrowRight aria-hidden className="size-3.5" />
        <span className="sr-only">to</span> {move.to_version ?? "removed"}
        <span className="ml-auto text-xs font-normal text-ink-soft" title={dateTime(move.at)}>
          {ago(move.at)}
        </span>
      </div>
      {move.reason && <p className="[overflow-wrap:anywhere]">{move.reason}</p>}
      {move.actor && (
        <p className="text-xs text-ink-soft">
          <Actor actor={move.actor} />
        </p>
      )}
    </li>
  );
}
