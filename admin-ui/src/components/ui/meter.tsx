import { cn } from "@/lib/cn";

/** How much of a limit is used, as a bar; the numbers stand beside it. plain: there is no harm in being full. */
export function Meter({
  value,
  max,
  label,
  plain = false,
}: {
  value: number;
  max: number;
  label: string;
  plain?: boolean;
}) {
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
        className={cn(
          "h-full rounded-full",
          plain || part <= 0.7 ? "bg-accent" : part > 0.9 ? "bg-bad" : "bg-warn",
        )}
        style={{ width: `${Math.max(part * 100, value > 0 ? 1.5 : 0)}%` }}
      />
    </div>
  );
}
