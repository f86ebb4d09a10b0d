import { createFileRoute } from "@tanstack/react-router";
import { PlaygroundPage } from "@/features/playground";

export const Route = createFileRoute("/_console/playground")({
  validateSearch: (search: Record<string, unknown>): { models?: string[] } => {
    const models = Array.isArray(search.models)
      ? search.models.filter((one): one is string => typeof one === "string" && one.length <= 200).slice(0, 4)
      : [];
    return models.length > 0 ? { models } : {};
  },
  component: () => <PlaygroundPage chosen={Route.useSearch().models ?? []} />,
});
