import { type ComponentProps, type ReactNode, useId } from "react";
import { cn } from "@/lib/cn";

export const fieldStyle =
  "h-9 w-full min-w-0 rounded-md border border-line-strong/60 bg-surface px-3 text-sm text-ink transition-colors hover:border-line-strong disabled:opacity-55 aria-invalid:border-bad";

export function Input({ className, ...rest }: ComponentProps<"input">) {
  return <input className={cn(fieldStyle, className)} {...rest} />;
}

export function Textarea({ className, ...rest }: ComponentProps<"textarea">) {
  return <textarea className={cn(fieldStyle, "h-auto py-2 leading-relaxed", className)} {...rest} />;
}

interface FieldProps {
  label: string;
  hint?: ReactNode;
  error?: string | null;
  children: (field: { id: string; "aria-describedby"?: string; "aria-invalid"?: boolean }) => ReactNode;
}

/** A label, a control, and what is wrong with it; wired so that all three are read together. */
export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  const about = error || hint ? `${id}-about` : undefined;
  return (
    <div className="grid gap-1.5">
      <label htmlFor={id} className="text-sm font-medium">
        {label}
      </label>
      {children({ id, "aria-describedby": about, "aria-invalid": error ? true : undefined })}
      {error ? (
        <p id={about} role="alert" className="text-[0.85rem] text-bad">
          {error}
        </p>
      ) : (
        hint && (
          <p id={about} className="text-[0.85rem] text-ink-soft">
            {hint}
          </p>
        )
      )}
    </div>
  );
}
