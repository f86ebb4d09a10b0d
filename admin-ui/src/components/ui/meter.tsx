import { cn } from "@/lib/cn";

/** How much of a limit is used, as a bar; the numbers stand beside it. */
export function Meter({ value, max, label }: { value: number; max: number; label: string }) {
  const part = max > 0 ? Math.min(1, value / max) : 1;
  return (
    // biome-ignore lint/a11y/useSemanticElements: browsers draw <meter> each in their own way, and none in two themes
    <div
      role="meter"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={max}
      aria-valuenow={Math.min(value, max)}
      className="h-1.5 w-full overflow-hidden rounded-full bg-raised"
    >
      <div
        className={cn("h-full rounded-full", part > 0.9 ? "bg-bad" : part > 0.7 ? "bg-warn" : "bg-accent")}
        style={{ width: `${Math.max(part * 100, value > 0 ? 1.5 : 0)}%` }}
      />
    </div>
  );
}
