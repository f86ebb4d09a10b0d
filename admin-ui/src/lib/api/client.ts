import createClient from "openapi-fetch";
import { ApiError, problemOf } from "./errors";
import type { paths } from "./schema";

/** The session itself is in a cookie that scripts cannot read; this is what every change must prove. */
let csrfToken = "";

export function setCsrfToken(token: string): void {
  csrfToken = token;
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
    throw problemOf(settled.response, settled.error);
  }
  return settled.data as T;
}
