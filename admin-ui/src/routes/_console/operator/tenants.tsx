import { createFileRoute } from "@tanstack/react-router";
import { type TenantSearch, TenantsPage } from "@/features/operator/tenants";
import { text } from "@/lib/search";

export const Route = createFileRoute("/_console/operator/tenants")({
  validateSearch: (search: Record<string, unknown>): TenantSearch => ({
    tenant: text(search.tenant),
    name: text(search.name, 63),
  }),
  component: () => <TenantsPage search={Route.useSearch()} />,
});
