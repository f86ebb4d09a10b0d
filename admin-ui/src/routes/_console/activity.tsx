import { createFileRoute } from "@tanstack/react-router";
import { ActivityPage, type ActivitySearch } from "@/features/activity";
import { kindsIn } from "@/features/activity/kinds";
import { day, oneOf, text } from "@/lib/search";

export const Route = createFileRoute("/_console/activity")({
  validateSearch: (search: Record<string, unknown>): ActivitySearch => ({
    range: oneOf(search.range, ["24h", "7d", "30d", "90d", "custom"]),
    from: day(search.from),
    to: day(search.to),
    adapter: text(search.adapter, 63),
    kind: kindsIn(search.kind),
    signIns: oneOf(search.signIns, ["hidden"]),
  }),
  component: () => <ActivityPage search={Route.useSearch()} />,
});
