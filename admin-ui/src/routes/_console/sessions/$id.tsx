import { createFileRoute } from "@tanstack/react-router";
import { SessionDetail } from "@/features/sessions/detail";
import { text } from "@/lib/search";

export const Route = createFileRoute("/_console/sessions/$id")({
  validateSearch: (search: Record<string, unknown>): { from?: string } => ({ from: text(search.from, 64) }),
  component: Page,
});

function Page() {
  const { id } = Route.useParams();
  return <SessionDetail key={id} id={id} from={Route.useSearch().from} />;
}
