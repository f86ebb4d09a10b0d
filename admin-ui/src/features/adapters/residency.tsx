import {
  CircleHelp,
  Flame,
  HardDrive,
  Hourglass,
  LogOut,
  type LucideIcon,
  OctagonAlert,
  XCircle,
} from "lucide-react";
import { Popover } from "radix-ui";
import { Chip } from "@/components/ui/chip";
import type { EngineRef, ResidentView } from "@/lib/api/schema";
import { standing, word } from "./standing";

const LOOKS: Record<string, ["accent" | "warn" | "bad" | "plain", LucideIcon]> = {
  resident: ["accent", Flame],
  loading: ["warn", Hourglass],
  draining: ["warn", LogOut],
  failed: ["bad", XCircle],
  absent: ["warn", Hourglass],
  disk: ["plain", HardDrive],
  unknown: ["plain", CircleHelp],
};

export function StandingChip({ state, text }: { state: string; text: string }) {
  const [tone, icon] = LOOKS[state] ?? ["plain", OctagonAlert];
  return (
    <Chip tone={tone} icon={icon}>
      {text}
    </Chip>
  );
}

interface Props {
  /** The version's name, for those who do not see the row: "support:3". */
  model: string;
  engines: readonly EngineRef[];
  held: ResidentView | undefined;
}

/** Where a version is: a chip; with several engines it opens to each of them. */
export function Residency({ model, engines, held }: Props) {
  const { state, text, places } = standing(engines, held);
  if (places.length < 2) return <StandingChip state={state} text={text} />;
  return (
    <Popover.Root>
      <Popover.Trigger
        aria-label={`${model}: ${text}, by engine`}
        className="inline-flex min-h-6 max-w-full items-center rounded-full"
      >
        <StandingChip state={state} text={text} />
      </Popover.Trigger>
      <Popover.Portal>
        <Popover.Content
          align="start"
          sideOffset={4}
          collisionPadding={16}
          aria-label={`${model} by engine`}
          className="z-50 max-h-80 w-80 max-w-[calc(100vw-2rem)] overflow-y-auto rounded-lg border border-line bg-surface p-3 shadow-float"
        >
          <p className="mb-2 text-xs text-ink-soft">{model} by engine</p>
          <ul className="grid gap-2 text-sm">
            {places.map((place) => (
              <li key={place.engine} className="flex items-center justify-between gap-3">
                <span className="min-w-0">
                  <span className="block truncate font-medium">{place.engine}</span>
                  <span className="block text-xs text-ink-soft">{place.role}</span>
                </span>
                <StandingChip state={place.state} text={word(place.state)} />
              </li>
            ))}
          </ul>
        </Popover.Content>
      </Popover.Portal>
    </Popover.Root>
  );
}
