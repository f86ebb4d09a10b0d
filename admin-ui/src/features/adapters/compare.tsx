import { Panel } from "@/components/ui/panel";
import { useSeries } from "@/features/usage/usage";
import type { AliasView, VersionView } from "@/lib/api/schema";
import { cn } from "@/lib/cn";
import { bytes, count, dateTime, money, percent, share } from "@/lib/format";

/** As many groups as the API tells apart. */
const MOST_GROUPS = 20;

interface Props {
  id: string;
  name: string;
  numbers: readonly number[];
  versions: readonly VersionView[];
  aliases: readonly AliasView[];
}

/** Two versions beside each other: what they are, and how they were used in the last week. */
export function Compare({ id, name, numbers, versions, aliases }: Props) {
  const usage = useSeries({ by: "version", measure: "cost", range: "7d", adapter: id, groups: MOST_GROUPS });
  const [left, right] = [...numbers]
    .sort((a, b) => a - b)
    .map((number) => versions.find((version) => version.number === number));
  if (!left || !right) return null;
  const used = (version: VersionView) => (usage.data?.data ?? []).filter((point) => point.id === version.id);
  // Among the sum of all others a version's own share is not known, and nothing is not zero.
  const known = (version: VersionView) =>
    usage.data !== undefined && (used(version).length > 0 || !usage.data.data.some((point) => point.rest));
  const sum = (version: VersionView, pick: (point: ReturnType<typeof used>[number]) => number) =>
    used(version).reduce((all, point) => all + pick(point), 0);
  const shown = (version: VersionView, text: () => string) => (known(version) ? text() : "–");
  const rows: [string, (version: VersionView) => string][] = [
    ["State", (v) => v.state],
    [
      "Aliases",
      (v) =>
        aliases
          .filter((a) => a.version === v.number)
          .map((a) => a.alias)
          .join(", ") || "none",
    ],
    ["Digest", (v) => v.digest?.slice(0, 16) ?? "–"],
    ["Rank", (v) => String(v.rank ?? "–")],
    ["Size", (v) => bytes(v.bytes)],
    ["Target modules", (v) => v.targets?.join(", ") ?? "–"],
    ["Uploaded", (v) => dateTime(v.created_at)],
    ["Requests, 7 days", (v) => shown(v, () => count(sum(v, (p) => p.requests)))],
    ["Completion tokens, 7 days", (v) => shown(v, () => count(sum(v, (p) => p.completion_tokens)))],
    [
      "From the cache, 7 days",
      (v) =>
        percent(
          share(
            sum(v, (p) => p.cached_tokens),
            sum(v, (p) => p.prompt_tokens),
          ),
        ),
    ],
    [
      "Guesses that stood, 7 days",
      (v) =>
        percent(
          share(
            sum(v, (p) => p.accepted_tokens),
            sum(v, (p) => p.drafted_tokens),
          ),
        ),
    ],
    ["Cost, 7 days", (v) => shown(v, () => money(sum(v, (p) => Number(p.cost)).toFixed(9)))],
  ];
  return (
    <Panel title={`${name}: ${left.number} and ${right.number}`} flush>
      <div id="compare" className="overflow-x-auto">
        <table className="w-full text-sm">
          <caption className="sr-only">Two versions compared; what differs is marked</caption>
          <thead>
            <tr className="border-b border-line text-xs text-ink-soft">
              <td className="px-4 py-2" />
              {[left, right].map((version) => (
                <th key={version.id} scope="col" className="px-4 py-2 text-left font-medium">
                  Version {version.number}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map(([label, of]) => {
              const differs = of(left) !== of(right);
              return (
                <tr key={label} className="border-b border-line last:border-b-0">
                  <th scope="row" className="px-4 py-2 text-left font-normal text-ink-soft">
                    {label}
                    {differs && <span className="sr-only"> (differs)</span>}
                  </th>
                  {[left, right].map((version) => (
                    <td
                      key={version.id}
                      className={cn("px-4 py-2 [overflow-wrap:anywhere]", differs && "font-medium")}
                    >
                      {of(version)}
                    </td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}
