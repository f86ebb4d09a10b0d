import { createFileRoute, redirect } from "@tanstack/react-router";
import { landing } from "@/components/layout/nav";
import { sessionQuery } from "@/features/session/session";

export const Route = createFileRoute("/_console/")({
  beforeLoad: async ({ context }) => {
    const { me } = await context.queryClient.ensureQueryData(sessionQuery);
    throw redirect({ to: landing(me.scopes), replace: true });
  },
});
