import { createFileRoute } from "@tanstack/react-router";
import { UsagePage, type UsageSearch } from "@/features/usage";
import { day, moment, oneOf, text } from "@/lib/search";

export const Route = createFileRoute("/_console/usage")({
  validateSearch: (search: Record<string, unknown>): UsageSearch => ({
    by: oneOf(search.by, ["adapter", "version", "key", "total"]),
    measure: oneOf(search.measure, ["cost", "tokens"]),
    range: oneOf(search.range, ["24h", "7d", "30d", "90d", "custom"]),
    from: day(search.from),
    to: day(search.to),
    at: moment(search.at),
    key: text(search.key, 64),
    adapter: text(search.adapter, 64),
    version: text(search.version, 64),
    base: text(search.base, 200),
  }),
  component: () => <UsagePage search={Route.useSearch()} />,
});
