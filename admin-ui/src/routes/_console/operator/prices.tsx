import { createFileRoute } from "@tanstack/react-router";
import { PricesPage } from "@/features/operator/prices";

export const Route = createFileRoute("/_console/operator/prices")({ component: PricesPage });
