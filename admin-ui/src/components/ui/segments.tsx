import { ToggleGroup } from "radix-ui";
import type { Choice } from "./select";

interface Props<T extends string> {
  label: string;
  value: T;
  onChange: (value: T) => void;
  choices: readonly Choice<T>[];
}

/** One of a few, all in sight. */
export function Segments<T extends string>({ label, value, onChange, choices }: Props<T>) {
  return (
    <ToggleGroup.Root
      type="single"
      aria-label={label}
      value={value}
      onValueChange={(next) => next && onChange(next as T)}
      className="inline-flex h-9 rounded-md border border-line-strong/60 bg-surface p-0.5"
    >
      {choices.map((choice) => (
        <ToggleGroup.Item
          key={choice.value}
          value={choice.value}
          className="rounded px-2.5 text-sm text-ink-soft hover:text-ink data-[state=on]:bg-accent-wash data-[state=on]:font-medium data-[state=on]:text-accent"
        >
          {choice.label}
        </ToggleGroup.Item>
      ))}
    </ToggleGroup.Root>
  );
}
