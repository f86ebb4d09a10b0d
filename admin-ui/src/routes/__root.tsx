import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, Link, Outlet } from "@tanstack/react-router";
import { buttonStyle } from "@/components/ui/button";
import { Empty, Failed } from "@/components/ui/states";

export const Route = createRootRouteWithContext<{ queryClient: QueryClient }>()({
  component: Outlet,
  errorComponent: ({ error, reset }) => (
    <main>
      <Failed error={error} onRetry={reset} />
    </main>
  ),
  notFoundComponent: () => (
    <Empty
      title="There is no such page"
      action={
        <Link to="/overview" className={buttonStyle()}>
          To the overview
        </Link>
      }
    />
  ),
});
