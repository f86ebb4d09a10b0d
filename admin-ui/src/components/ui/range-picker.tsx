import { type Dates, dateText, RANGES, type Range } from "@/features/usage/ranges";
import { Input } from "./input";
import { Select } from "./select";

const DAY_MS = 86_400_000;
type Choice = Range | "any";

interface Props<T extends Choice> {
  value: T;
  dates: Dates;
  /** Whether all time may be asked for. */
  any?: boolean;
  onChange: (next: { range: T } & Dates) => void;
}

/** A time range by name, or by its first and last day. */
export function RangePicker<T extends Choice>({ value, dates, any = false, onChange }: Props<T>) {
  const choices = [
    ...(any ? [{ value: "any", label: "Any time" }] : []),
    ...RANGES,
    { value: "custom", label: "From … to …" },
  ] as { value: T; label: string }[];
  const today = dateText(Date.now());
  function pick(range: T) {
    const week = { from: dateText(Date.now() - 6 * DAY_MS), to: today };
    onChange(range === "custom" ? { range, ...week } : { range, from: undefined, to: undefined });
  }
  const set = (change: Dates) => onChange({ range: value, ...dates, ...change });
  return (
    <fieldset className="flex flex-wrap items-center gap-2">
      <legend className="sr-only">Time range</legend>
      <Select label="Time range" value={value} onChange={pick} choices={choices} />
      {value === "custom" && (
        <>
          <Input
            type="date"
            aria-label="First day (UTC)"
            className="w-auto"
            max={dates.to ?? today}
            value={dates.from ?? ""}
            onChange={(event) => event.target.value && set({ from: event.target.value })}
          />
          <Input
            type="date"
            aria-label="Last day (UTC)"
            className="w-auto"
            min={dates.from}
            max={today}
            value={dates.to ?? ""}
            onChange={(event) => event.target.value && set({ to: event.target.value })}
          />
        </>
      )}
    </fieldset>
  );
}
