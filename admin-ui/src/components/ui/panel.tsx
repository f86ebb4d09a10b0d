import { type ReactNode, useId } from "react";
import { cn } from "@/lib/cn";

interface Props {
  title?: string;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
  flush?: boolean;
}

/** A titled surface. flush: the content (a table) reaches its edges. */
export function Panel({ title, aside, children, className, flush = false }: Props) {
  const id = useId();
  return (
    <section
      aria-labelledby={title ? id : undefined}
      className={cn("min-w-0 rounded-xl border border-line bg-surface", className)}
    >
      {(title || aside) && (
        <div className="flex min-h-12 flex-wrap items-center justify-between gap-x-4 gap-y-2 border-b border-line px-4 py-2.5">
          {title && (
            <h2 id={id} className="text-sm font-semibold">
              {title}
            </h2>
          )}
          {aside}
        </div>
      )}
      <div className={flush ? "" : "p-4"}>{children}</div>
    </section>
  );
}
