import { createFileRoute } from "@tanstack/react-router";
import { SessionsPage } from "@/features/sessions";
import { present, text } from "@/lib/search";

export const Route = createFileRoute("/_console/sessions/")({
  validateSearch: (search: Record<string, unknown>): { model?: string } =>
    present({ model: text(search.model, 200) }),
  component: () => <SessionsPage model={Route.useSearch().model} />,
});
