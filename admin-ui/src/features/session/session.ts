import { type QueryClient, queryOptions, useSuspenseQuery } from "@tanstack/react-query";
import { answer, api, setCsrfToken } from "@/lib/api/client";
import type { BrowserSessionView, SignIn } from "@/lib/api/schema";
import { setCurrency } from "@/lib/format";

/** Who is signed in here. Every page below the console's layout may rely on it. */
export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: async () => keep(await answer(api.GET("/api/v1/browser-sessions/current"))),
  staleTime: 10 * 60_000,
  retry: false,
});

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
}

/** Ends the session on the server, then leaves the page whole: nothing of the tenant is left in its memory. */
export async function signOut(): Promise<void> {
  await answer(api.DELETE("/api/v1/browser-sessions/current")).catch(() => undefined);
  location.assign("/admin/sign-in");
}
