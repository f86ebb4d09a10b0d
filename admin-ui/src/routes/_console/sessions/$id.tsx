import { createFileRoute } from "@tanstack/react-router";
import { SessionDetail } from "@/features/sessions/detail";

export const Route = createFileRoute("/_console/sessions/$id")({ component: Page });

function Page() {
  const { id } = Route.useParams();
  return <SessionDetail key={id} id={id} />;
}
