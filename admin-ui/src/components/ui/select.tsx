import { Check, ChevronDown } from "lucide-react";
import { Select as Radix } from "radix-ui";
import { cn } from "@/lib/cn";
import { fieldStyle } from "./input";

export interface Choice<T extends string> {
  value: T;
  label: string;
}

interface Props<T extends string> {
  value: T;
  onChange: (value: T) => void;
  choices: readonly Choice<T>[];
  label?: string;
  id?: string;
  className?: string;
}

export function Select<T extends string>({ value, onChange, choices, label, id, className }: Props<T>) {
  return (
    <Radix.Root value={value} onValueChange={(next) => onChange(next as T)}>
      <Radix.Trigger
        id={id}
        aria-label={label}
        className={cn(fieldStyle, "flex w-auto items-center justify-between gap-2 text-left", className)}
      >
        <span className="truncate">
          <Radix.Value />
        </span>
        <ChevronDown aria-hidden className="size-4 shrink-0 text-ink-soft" />
      </Radix.Trigger>
      <Radix.Portal>
        <Radix.Content
          position="popper"
          sideOffset={4}
          className="z-50 max-h-80 min-w-(--radix-select-trigger-width) overflow-y-auto rounded-lg border border-line bg-surface p-1 shadow-float"
        >
          {choices.map((choice) => (
            <Radix.Item
              key={choice.value}
              value={choice.value}
              className="flex cursor-default items-center gap-2 rounded-md py-1.5 pr-3 pl-2 text-sm outline-none data-highlighted:bg-raised"
            >
              <span className="grid size-4 place-items-center">
                <Radix.ItemIndicator>
                  <Check aria-hidden className="size-4 text-accent" />
                </Radix.ItemIndicator>
              </span>
              <Radix.ItemText>{choice.label}</Radix.ItemText>
            </Radix.Item>
          ))}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}
