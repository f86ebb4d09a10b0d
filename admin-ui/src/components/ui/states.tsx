import { Inbox, Lock, OctagonAlert, RotateCw, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";
import { ApiError } from "@/lib/api/errors";
import { Button } from "./button";

interface NoteProps {
  icon: ReactNode;
  title: string;
  children?: ReactNode;
  action?: ReactNode;
  alert?: boolean;
}

function Note({ icon, title, children, action, alert = false }: NoteProps) {
  return (
    <div role={alert ? "alert" : undefined} className="flex flex-col items-center px-6 py-12 text-center">
      <span className="mb-3 grid size-11 place-items-center rounded-full bg-raised text-ink-soft [&_svg]:size-5">
        {icon}
      </span>
      <p className="font-medium">{title}</p>
      {children && <div className="mt-1 max-w-md text-sm text-ink-soft">{children}</div>}
      {action && <div className="mt-4">{action}</div>}
    </div>
  );
}

export function Empty({
  title,
  children,
  action,
}: {
  title: string;
  children?: ReactNode;
  action?: ReactNode;
}) {
  return (
    <Note icon={<Inbox aria-hidden />} title={title} action={action}>
      {children}
    </Note>
  );
}

export function Forbidden({ children }: { children: ReactNode }) {
  return (
    <Note icon={<Lock aria-hidden />} title="This key may not see this">
      {children}
    </Note>
  );
}

/** What went wrong, in the API's own words, with the id that finds it in the log. */
export function Failed({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  if (error instanceof ApiError && error.isForbidden) {
    return (
      <Forbidden>{error.message} Sign in with a key that has the scope, or ask whoever made yours.</Forbidden>
    );
  }
  const retry = onRetry && (
    <Button onClick={onRetry}>
      <RotateCw aria-hidden /> Try again
    </Button>
  );
  return (
    <Note icon={<OctagonAlert aria-hidden />} title="This could not be loaded" action={retry} alert>
      {error instanceof Error ? error.message : String(error)}
      {error instanceof ApiError && error.requestId && (
        <span className="mt-2 block font-mono text-xs [overflow-wrap:anywhere]">{error.requestId}</span>
      )}
    </Note>
  );
}

/** Some of a page is missing, and the rest still holds. */
export function Partial({ children }: { children: ReactNode }) {
  return (
    <div role="status" className="flex items-start gap-2 rounded-lg bg-warn-wash px-3 py-2 text-sm text-warn">
      <TriangleAlert aria-hidden className="mt-0.5 size-4 shrink-0" />
      <div>{children}</div>
    </div>
  );
}

export function Skeleton({ rows = 5 }: { rows?: number }) {
  return (
    <div role="status" className="grid gap-3 p-4">
      <span className="sr-only">Loading</span>
      {Array.from({ length: rows }, (_, row) => row).map((row) => (
        <div
          key={row}
          className="h-5 animate-pulse rounded bg-raised"
          style={{ width: `${92 - ((row * 17) % 40)}%` }}
        />
      ))}
    </div>
  );
}

interface ViewProps<T> {
  query: { data: T | undefined; error: unknown; isPending: boolean; refetch: () => unknown };
  rows?: number;
  children: (data: T) => ReactNode;
}

/** Loading, failed, forbidden, or the thing itself; stale data stays visible while a refresh fails. */
export function View<T>({ query, rows, children }: ViewProps<T>) {
  if (query.data !== undefined) {
    return (
      <>
        {query.error !== null && query.error !== undefined && (
          <div className="p-2">
            <Partial>
              Not up to date: {query.error instanceof Error ? query.error.message : "no answer"}
            </Partial>
          </div>
        )}
        {children(query.data)}
      </>
    );
  }
  if (query.isPending) return <Skeleton rows={rows} />;
  return <Failed error={query.error} onRetry={() => query.refetch()} />;
}
