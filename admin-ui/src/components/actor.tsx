import { KeyRound, UserRound } from "lucide-react";
import { Chip } from "@/components/ui/chip";
import type { ActorView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";

/** Who did it, by the name people know: a person's or a key's, and whether that key is good any more. */
export function Actor({ actor }: { actor: ActorView | null }) {
  if (!actor) return <span className="text-ink-soft">–</span>;
  const Icon = actor.person ? UserRound : KeyRound;
  return (
    <span className="inline-flex max-w-full flex-wrap items-center gap-1.5" title={actor.id}>
      <Icon aria-hidden className="size-3.5 shrink-0 text-ink-soft" />
      <span className="sr-only">{actor.person ? "Person" : "Key"}</span>
      <span className="[overflow-wrap:anywhere]">{actor.name}</span>
      {actor.revoked_at && (
        <span title={dateTime(actor.revoked_at)}>
          <Chip>{actor.person ? "removed" : "revoked"}</Chip>
        </span>
      )}
    </span>
  );
}
