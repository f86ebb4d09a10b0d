import createClient from "openapi-fetch";
import { ApiError, problemOf } from "./errors";
import type { paths } from "./schema";

/** The session itself is in a cookie that scripts cannot read; this is what every change must prove. */
let csrfToken = "";
let onLost: (error: ApiError) => void = () => undefined;

export function setCsrfToken(token: string): void {
  csrfToken = token;
}

export function hasCsrfToken(token: string): boolean {
  return csrfToken === token;
}

/** Who hears that the session this page was made for is over, whichever call found it out. */
export function whenSessionLost(listener: (error: ApiError) => void): void {
  onLost = listener;
}

/** For the two requests that openapi-fetch cannot make: uploads with progress, and streams. */
export function changeHeaders(): Record<string, string> {
  return { "x-csrf-token": csrfToken };
}

export const api = createClient<paths>({ baseUrl: "", credentials: "same-origin" });

api.use({
  onRequest({ request }) {
    if (request.method !== "GET") request.headers.set("x-csrf-token", csrfToken);
    return request;
  },
});

/** The body of a good answer; anything else is thrown as an ApiError. */
export async function answer<T>(
  call: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  let settled: { data?: T; error?: unknown; response: Response };
  try {
    settled = await call;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The gateway does not answer.", null, null, []);
  }
  if (settled.error !== undefined || !settled.response.ok) {
    throw refused(settled.response, settled.error);
  }
  return settled.data as T;
}

/** What a refusal says; those that end the session are told to whoever leaves the page for it. */
export function refused(response: { status: number; url?: string }, body: unknown): ApiError {
  const error = problemOf(response, body);
  // Signing in and asking who is signed in answer 401 as well: their callers know what it means.
  if (error.isSessionLost && !response.url?.includes("/browser-sessions")) onLost(error);
  return error;
}
