import { createFileRoute } from "@tanstack/react-router";
import { ActivityPage, type ActivitySearch } from "@/features/activity";
import { kindsIn } from "@/features/activity/kinds";
import { oneOf, present, text } from "@/lib/search";

export const Route = createFileRoute("/_console/activity")({
  validateSearch: (search: Record<string, unknown>): ActivitySearch =>
    present({
      range: oneOf(search.range, ["24h", "7d", "30d", "90d", "custom"]),
      from: text(search.from, 10),
      to: text(search.to, 10),
      adapter: text(search.adapter, 63),
      kind: kindsIn(search.kind),
      signIns: oneOf(search.signIns, ["hidden"]),
    }),
  component: () => <ActivityPage search={Route.useSearch()} />,
});
