/** One finding of the adapter validator. */
export interface Problem {
  code: string;
  subject: string;
  message: string;
}

/** What the API answered instead: a stable code, a sentence for people, and the field at fault. status 0: no answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null,
    readonly requestId: string | null,
    readonly problems: Problem[],
  ) {
    super(message);
  }

  get isSignedOut(): boolean {
    return this.status === 401;
  }

  /** Ended, or another's by now: another tab of this browser signed in. */
  get isSessionLost(): boolean {
    return this.isSignedOut || this.code === "csrf_token_invalid";
  }

  get isForbidden(): boolean {
    return this.status === 403 && this.code !== "csrf_token_invalid";
  }
}

export function problemOf(response: { status: number }, body: unknown): ApiError {
  const error = isRecord(body) && isRecord(body.error) ? body.error : {};
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return new ApiError(
    response.status,
    text(error.code) ?? "unknown",
    text(error.message) ?? `The gateway answered ${response.status}.`,
    text(error.param),
    text(error.request_id),
    Array.isArray(error.problems) ? error.problems.filter(isProblem) : [],
  );
}

export function isProblem(value: unknown): value is Problem {
  return isRecord(value) && typeof value.code === "string" && typeof value.message === "string";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
