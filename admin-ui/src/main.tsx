import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createRouter, RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Broken, sayWhatDidNotCome } from "@/components/ui/broken";
import { Toasts } from "@/components/ui/toast";
import { followSession } from "@/features/session/session";
import { ApiError } from "@/lib/api/errors";
import { refuseStrayDrops } from "@/lib/drops";
import { startTheme } from "@/lib/theme";
import { routeTree } from "./routeTree.gen";
import "./styles.css";

startTheme();

// Dialogs add a style element of their own to keep the page still; the policy lets it in by this nonce.
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce;
Object.assign(globalThis, { __webpack_nonce__: nonce });

const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      // Asked also where the browser believes itself offline: what fails says so, what waits silently does not.
      networkMode: "always",
      retry: (failures, error) =>
        failures < 2 && error instanceof ApiError && (error.status === 0 || error.status >= 500),
    },
    mutations: { networkMode: "always" },
  },
});
followSession();
sayWhatDidNotCome();
refuseStrayDrops();

const router = createRouter({
  routeTree,
  basepath: "/admin",
  context: { queryClient },
  defaultPreload: "intent",
  defaultErrorComponent: Broken,
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
