import { createFileRoute } from "@tanstack/react-router";
import { SignInPage } from "@/features/session/sign-in-page";
import { inside } from "@/lib/search";

export const Route = createFileRoute("/sign-in")({
  validateSearch: (search: Record<string, unknown>): { next?: string; ended?: true } => ({
    next: inside(search.next),
    ended: search.ended === true || undefined,
  }),
  component: Page,
});

function Page() {
  const { next, ended } = Route.useSearch();
  return <SignInPage next={next} ended={Boolean(ended)} />;
}
