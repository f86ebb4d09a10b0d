import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, Link, Outlet } from "@tanstack/react-router";
import { Broken } from "@/components/ui/broken";
import { buttonStyle } from "@/components/ui/button";
import { Empty } from "@/components/ui/states";

export const Route = createRootRouteWithContext<{ queryClient: QueryClient }>()({
  component: Outlet,
  errorComponent: ({ error }) => (
    <main>
      <Broken error={error} />
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
