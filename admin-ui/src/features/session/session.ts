import { type QueryClient, queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { answer, api, hasCsrfToken, setCsrfToken, whenSessionLost } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { BrowserSessionView, SignIn } from "@/lib/api/schema";
import { setCurrency } from "@/lib/format";
import { heedOtherTabs, tellOtherTabs } from "./tabs";

/** Who is signed in here. Every page below the console's layout may rely on it. */
export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async () => keep(await current()),
  // Not read again by itself: the name above a page and the page's rows change together, by a new page.
  staleTime: Number.POSITIVE_INFINITY,
  retry: false,
});

function current(): Promise<BrowserSessionView> {
  return answer(api.GET("/api/v1/browser-sessions/current"));
}

function keep(session: BrowserSessionView): BrowserSessionView {
  setCsrfToken(session.csrf_token);
  setCurrency(session.installation.currency);
  return session;
}

export function useSession() {
  const { data } = useSuspenseQuery(sessionQuery);
  const scopes = new Set(data.me.scopes);
  return {
    me: data.me,
    installation: data.installation,
    isOperator: scopes.has("operator"),
    mayManage: scopes.has("manage") || scopes.has("operator"),
  };
}

export async function signIn(client: QueryClient, how: SignIn): Promise<void> {
  const session = await answer(api.POST("/api/v1/browser-sessions", { body: how }));
  client.clear();
  client.setQueryData(sessionQuery.queryKey, keep(session));
  tellOtherTabs();
}

/** Ends the session on the server, then leaves the page whole: nothing of the tenant is left in its memory.
 *  Throws where the server did not hear it: then one is still signed in, and must be told so. */
export async function signOut(): Promise<void> {
  try {
    await answer(api.DELETE("/api/v1/browser-sessions/current"));
  } catch (failure) {
    if (!(failure instanceof ApiError && failure.isSessionLost)) throw failure;
  }
  tellOtherTabs();
  location.assign("/admin/sign-in");
}

/** Keeps this tab true to the browser's session: over, it leaves for the sign-in; another's by now, it begins anew. */
export function followSession(): void {
  let leaving = false;
  const leave = (go: () => void) => {
    if (leaving || onSignIn()) return;
    leaving = true;
    go();
  };
  const anew = () => leave(() => location.reload());
  const toSignIn = () => {
    const next = encodeURIComponent(location.pathname + location.search);
    leave(() => location.assign(`/admin/sign-in?ended=true&next=${next}`));
  };
  whenSessionLost((error) => (error.isSignedOut ? toSignIn() : anew()));
  heedOtherTabs(anew, () => {
    if (onSignIn()) return;
    current().then(
      (session) => hasCsrfToken(session.csrf_token) || anew(),
      (failure: unknown) => failure instanceof ApiError && failure.isSignedOut && toSignIn(),
    );
  });
}

function onSignIn(): boolean {
  return location.pathname.startsWith("/admin/sign-in");
}
