import { createFileRoute, redirect } from "@tanstack/react-router";
import { Shell } from "@/components/layout/shell";
import { Broken } from "@/components/ui/broken";
import { Skeleton } from "@/components/ui/states";
import { sessionQuery } from "@/features/session/session";
import { ApiError } from "@/lib/api/errors";

export const Route = createFileRoute("/_console")({
  beforeLoad: async ({ context, location }) => {
    try {
      await context.queryClient.ensureQueryData(sessionQuery);
    } catch (error) {
      if (error instanceof ApiError && error.isSignedOut) {
        throw redirect({
          to: "/sign-in",
          search: { next: `/admin${location.href === "/" ? "" : location.href}` },
        });
      }
      throw error;
    }
  },
  component: Shell,
  pendingComponent: () => <Skeleton rows={8} />,
  errorComponent: ({ error }) => (
    <main>
      <Broken error={error} />
    </main>
  ),
});
