import {
  Ban,
  CheckCircle2,
  CircleDashed,
  CircleSlash,
  Clock,
  Flame,
  Hourglass,
  type LucideIcon,
  OctagonAlert,
  PauseCircle,
  ShieldAlert,
  XCircle,
} from "lucide-react";
import type { ReactNode } from "react";
import { cn } from "@/lib/cn";

type Tone = "good" | "warn" | "bad" | "plain" | "accent";

const TONES: Record<Tone, string> = {
  good: "bg-good-wash text-good",
  warn: "bg-warn-wash text-warn",
  bad: "bg-bad-wash text-bad",
  accent: "bg-accent-wash text-accent",
  plain: "bg-raised text-ink-soft",
};

/** A word with an icon: the colour only repeats what they say. */
export function Chip({
  tone = "plain",
  icon: Icon,
  children,
}: {
  tone?: Tone;
  icon?: LucideIcon;
  children: ReactNode;
}) {
  return (
    <span
      className={cn(
        "inline-flex max-w-full items-center gap-1 rounded-full px-2 py-0.5 text-xs font-medium whitespace-nowrap",
        TONES[tone],
      )}
    >
      {Icon && <Icon aria-hidden className="size-3.5 shrink-0" />}
      <span className="truncate">{children}</span>
    </span>
  );
}

const STATES: Record<string, [Tone, LucideIcon]> = {
  ready: ["good", CheckCircle2],
  active: ["good", CheckCircle2],
  completed: ["good", CheckCircle2],
  validating: ["warn", Hourglass],
  loading: ["warn", Hourglass],
  draining: ["warn", Hourglass],
  recovered: ["warn", ShieldAlert],
  cancelled: ["plain", CircleSlash],
  rejected: ["bad", XCircle],
  failed: ["bad", XCircle],
  refused: ["bad", Ban],
  away: ["bad", XCircle],
  quarantined: ["bad", ShieldAlert],
  revoked: ["bad", Ban],
  suspended: ["bad", PauseCircle],
  expired: ["plain", Clock],
  retired: ["plain", CircleSlash],
  resident: ["accent", Flame],
  absent: ["plain", CircleDashed],
};

export function StateChip({ state }: { state: string }) {
  const [tone, icon] = STATES[state] ?? ["plain", OctagonAlert];
  return (
    <Chip tone={tone} icon={icon}>
      {state}
    </Chip>
  );
}
