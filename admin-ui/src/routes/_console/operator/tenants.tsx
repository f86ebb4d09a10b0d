import { createFileRoute } from "@tanstack/react-router";
import { TenantsPage } from "@/features/operator/tenants";

export const Route = createFileRoute("/_console/operator/tenants")({ component: TenantsPage });
