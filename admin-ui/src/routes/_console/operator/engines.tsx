import { createFileRoute } from "@tanstack/react-router";
import { EnginesPage } from "@/features/operator/engines";

export const Route = createFileRoute("/_console/operator/engines")({ component: EnginesPage });
