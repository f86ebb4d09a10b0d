import { createFileRoute } from "@tanstack/react-router";
import { AdaptersPage } from "@/features/adapters";
import type { AdapterSearch } from "@/features/adapters/adapters";
import { oneOf, text } from "@/lib/search";

export const Route = createFileRoute("/_console/adapters/")({
  validateSearch: (search: Record<string, unknown>): AdapterSearch => ({
    name: text(search.name, 63),
    state: oneOf(search.state, ["ready", "rejected", "validating", "retired", "quarantined"]),
    on_device: search.on_device === true || undefined,
    sort: oneOf(search.sort, ["created", "name"]),
    order: oneOf(search.order, ["asc", "desc"]),
  }),
  component: () => <AdaptersPage search={Route.useSearch()} />,
});
