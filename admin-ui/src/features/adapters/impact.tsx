import type { ReactNode } from "react";
import type { ImpactView } from "@/lib/api/schema";
import { useImpact } from "./adapters";

/** What an act would hit right now, asked of the server when the question is put. */
export function ImpactLines({
  query,
  children,
}: {
  query: Parameters<typeof useImpact>[0];
  children: ReactNode;
}) {
  const impact = useImpact(query);
  return (
    <>
      <p>{children}</p>
      <Counted impact={impact} />
    </>
  );
}

/** The counts, or why there are none: an act whose blast radius is unknown says so. */
export function Counted({ impact }: { impact: { data: ImpactView | undefined; error: unknown } }) {
  if (impact.data) return <ImpactList impact={impact.data} />;
  return (
    <p className="mt-1" role="status">
      {impact.error
        ? `What it hits could not be counted: ${impact.error instanceof Error ? impact.error.message : "no answer"}`
        : "Counting what it hits…"}
    </p>
  );
}

export function ImpactList({ impact }: { impact: ImpactView }) {
  const lines = linesOf(impact);
  return (
    <ul className="mt-2 list-disc pl-5">
      {lines.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
}

export function linesOf(impact: ImpactView): string[] {
  const plural = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
  const lines = [`${plural(impact.requests_in_flight, "request")} in flight now`];
  if (impact.keys > 0) lines.push(plural(impact.keys, "live key"));
  if (impact.adapters > 1) lines.push(plural(impact.adapters, "adapter"));
  if (impact.sessions > 0) lines.push(plural(impact.sessions, "session"));
  if (impact.aliases.length > 0) {
    lines.push(`${plural(impact.aliases.length, "alias", "aliases")}: ${impact.aliases.join(", ")}`);
  }
  if (impact.browser_sessions > 0) lines.push(`${plural(impact.browser_sessions, "browser")} signed in`);
  return lines;
}
