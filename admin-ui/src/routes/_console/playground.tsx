import { createFileRoute } from "@tanstack/react-router";
import { PlaygroundPage } from "@/features/playground";
import { MOST } from "@/features/playground/panes";
import { texts } from "@/lib/search";

export const Route = createFileRoute("/_console/playground")({
  validateSearch: (search: Record<string, unknown>): { models?: string[] } => ({
    models: texts(search.models, MOST),
  }),
  component: () => <PlaygroundPage chosen={Route.useSearch().models ?? []} />,
});
