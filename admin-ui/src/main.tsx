import { QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createRouter, RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Toasts } from "@/components/ui/toast";
import { ApiError } from "@/lib/api/errors";
import { startTheme } from "@/lib/theme";
import { routeTree } from "./routeTree.gen";
import "./styles.css";

startTheme();

// Dialogs add a style element of their own to keep the page still; the policy lets it in by this nonce.
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce;
Object.assign(globalThis, { __webpack_nonce__: nonce });

let leaving = false;
const queryClient = new QueryClient({
  queryCache: new QueryCache({
    // A session that ended while a page was open: leave it whole, so that nothing of the tenant stays in memory.
    onError(error, query) {
      if (error instanceof ApiError && error.isSignedOut && query.queryKey[0] !== "session" && !leaving) {
        leaving = true;
        location.assign(`/admin/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
      }
    },
  }),
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      retry: (failures, error) =>
        failures < 2 && error instanceof ApiError && (error.status === 0 || error.status >= 500),
    },
  },
});

const router = createRouter({
  routeTree,
  basepath: "/admin",
  context: { queryClient },
  defaultPreload: "intent",
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queryClient}>
        <Toasts>
          <RouterProvider router={router} />
        </Toasts>
      </QueryClientProvider>
    </StrictMode>,
  );
}
