import { createFileRoute } from "@tanstack/react-router";
import { SignInPage } from "@/features/session/sign-in-page";

export const Route = createFileRoute("/sign-in")({
  validateSearch: (search: Record<string, unknown>): { next?: string } =>
    typeof search.next === "string" && /^\/admin(\/|$|\?)/.test(search.next) ? { next: search.next } : {},
  component: () => <SignInPage next={Route.useSearch().next ?? "/admin/overview"} />,
});
