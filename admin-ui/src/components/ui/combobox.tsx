import { Command } from "cmdk";
import { Check, ChevronDown } from "lucide-react";
import { Popover } from "radix-ui";
import { useState } from "react";
import { cn } from "@/lib/cn";
import { fieldStyle } from "./input";

interface Props {
  label: string;
  value: string;
  /** What the server found for `text`, so that the list is short whatever there is. */
  choices: readonly string[];
  text: string;
  onText: (text: string) => void;
  onChange: (value: string) => void;
  /** What taking the text as it stands is called, where that makes sense. */
  asTyped?: (text: string) => string;
  className?: string;
}

/** One of very many: a list that narrows as one types. */
export function Combobox({ label, value, choices, text, onText, onChange, asTyped, className }: Props) {
  const [open, setOpen] = useState(false);
  const typed = text.trim();
  function choose(next: string) {
    setOpen(false);
    onText("");
    onChange(next);
  }
  return (
    <Popover.Root open={open} onOpenChange={setOpen}>
      <Popover.Trigger
        aria-label={`${label}: ${value}`}
        className={cn(fieldStyle, "flex items-center justify-between gap-2 text-left", className)}
      >
        <span className="truncate">{value}</span>
        <ChevronDown aria-hidden className="size-4 shrink-0 text-ink-soft" />
      </Popover.Trigger>
      <Popover.Portal>
        <Popover.Content
          align="start"
          sideOffset={4}
          aria-label={label}
          className="z-50 w-72 max-w-[calc(100vw-2rem)] overflow-hidden rounded-lg border border-line bg-surface shadow-float"
        >
          <Command shouldFilter={false} label={label}>
            <Command.Input
              value={text}
              onValueChange={onText}
              placeholder="Part of a name…"
              className="h-10 w-full border-b border-line bg-transparent px-3 text-sm outline-none"
            />
            <Command.List className="max-h-72 overflow-y-auto p-1">
              {choices.map((choice) => (
                <Command.Item key={choice} value={choice} onSelect={() => choose(choice)} className={ITEM}>
                  <Check
                    aria-hidden
                    className={cn("size-4 shrink-0 text-accent", choice !== value && "invisible")}
                  />
                  <span className="truncate">{choice}</span>
                </Command.Item>
              ))}
              {asTyped && typed && !choices.includes(typed) && (
                <Command.Item value={`typed ${typed}`} onSelect={() => choose(typed)} className={ITEM}>
                  <span className="size-4 shrink-0" />
                  <span className="truncate">{asTyped(typed)}</span>
                </Command.Item>
              )}
            </Command.List>
          </Command>
        </Popover.Content>
      </Popover.Portal>
    </Popover.Root>
  );
}

const ITEM =
  "flex cursor-default items-center gap-2 rounded-md py-1.5 pr-3 pl-2 text-sm data-[selected=true]:bg-raised";
