import { createFileRoute } from "@tanstack/react-router";
import { SessionsPage } from "@/features/sessions";
import { text } from "@/lib/search";

export const Route = createFileRoute("/_console/sessions/")({
  validateSearch: (search: Record<string, unknown>): { model?: string } => ({
    model: text(search.model, 200),
  }),
  component: () => <SessionsPage model={Route.useSearch().model} />,
});
