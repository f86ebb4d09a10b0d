import { createFileRoute } from "@tanstack/react-router";
import { LimitsPage } from "@/features/limits";

export const Route = createFileRoute("/_console/limits")({ component: LimitsPage });
