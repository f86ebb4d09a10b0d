import { count } from "@/lib/format";

interface Props {
  cached: number;
  /** Parts of the cached ones that came back from below the engine's own pages. */
  host: number;
  disk: number;
  computed: number;
  generated: number;
  /** The longest bar on the page. */
  most: number;
}

/** One turn's tokens: found in the cache, computed, generated; the numbers stand beside the bar. */
export function TokenBar({ cached, host, disk, computed, generated, most }: Props) {
  const parts: [string, number, string][] = [
    ["cached", cached - host - disk, "var(--chart-2)"],
    ["from host", host, "var(--chart-6)"],
    ["from disk", disk, "var(--chart-8)"],
    ["computed", computed, "var(--chart-3)"],
    ["generated", generated, "var(--chart-1)"],
  ];
  return (
    <div className="grid min-w-40 gap-1">
      <div aria-hidden className="flex h-2.5 gap-px overflow-hidden rounded-full bg-raised">
        {parts
          .filter(([, n]) => n > 0)
          .map(([name, n, colour]) => (
            <div key={name} style={{ width: `${(n / Math.max(most, 1)) * 100}%`, background: colour }} />
          ))}
      </div>
      <p className="flex flex-wrap gap-x-3 text-xs text-ink-soft">
        {parts
          .filter(([name, n]) => n > 0 || !name.startsWith("from "))
          .map(([name, n, colour]) => (
            <span key={name} className="inline-flex items-center gap-1 whitespace-nowrap">
              <span aria-hidden className="size-2 rounded-sm" style={{ background: colour }} />
              {count(n)} {name}
            </span>
          ))}
      </p>
    </div>
  );
}
