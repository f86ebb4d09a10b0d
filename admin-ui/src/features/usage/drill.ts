import type { SeriesPoint, UsageEventView } from "@/lib/api/schema";
import type { Group } from "./stack";
import type { By } from "./usage";

/** The filter that a bar's part stands for; none for a whole bucket, for all others together, and in total. */
export function drilled(
  by: By,
  group: Group | null,
): Partial<Record<"adapter" | "version" | "key" | "base", string>> {
  if (!group || group.rest || by === "total") return {};
  if (group.id) return { [by]: group.id };
  return { base: group.label };
}

/** What ids are called, from whatever of them is on the page. */
export function namesOf(
  points: readonly SeriesPoint[],
  events: readonly UsageEventView[],
): Map<string, string> {
  const names = new Map<string, string>();
  for (const event of events) {
    if (event.key_name) names.set(event.key, event.key_name);
    if (!event.adapter_name) continue;
    if (event.adapter) names.set(event.adapter, event.adapter_name);
    if (event.version) names.set(event.version, `${event.adapter_name}:${event.version_number}`);
  }
  for (const point of points) if (point.id && point.label) names.set(point.id, point.label);
  return names;
}
