import { createFileRoute } from "@tanstack/react-router";
import { AdapterPage } from "@/features/adapters/detail";

export const Route = createFileRoute("/_console/adapters/$name")({ component: Page });

function Page() {
  const { name } = Route.useParams();
  return <AdapterPage key={name} name={name} />;
}
