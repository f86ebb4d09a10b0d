import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { KeyRound } from "lucide-react";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { Field, Input } from "@/components/ui/input";
import { ApiError } from "@/lib/api/errors";
import mark from "../../mark.svg";
import { signIn } from "./session";

interface Props {
  /** Where to go on; without it, to whoever it is's own first page. */
  next: string | undefined;
  /** A session ended while its page was open. */
  ended: boolean;
}

export function SignInPage({ next, ended }: Props) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const begun = useRef(false);

  async function enter(how: { key: string } | { link: string }) {
    setBusy(true);
    setError(null);
    try {
      await signIn(client, how);
      await navigate({ href: next ?? "/admin/", replace: true });
    } catch (failure) {
      setError(explain(failure, "link" in how));
      setBusy(false);
    }
  }

  // A link's secret is in the fragment: the browser sent it to nobody, and it must not stay in the history.
  useEffect(() => {
    const secret = location.hash.slice(1);
    if (!secret || begun.current) return;
    begun.current = true;
    history.replaceState(history.state, "", location.pathname + location.search);
    void enter({ link: secret });
  });

  function submit(event: FormEvent) {
    event.preventDefault();
    if (key.trim()) void enter({ key: key.trim() });
    else setError("Paste an API key first.");
  }

  return (
    <main className="grid min-h-dvh place-items-center p-4">
      <div className="w-full max-w-sm">
        <div className="mb-6 flex items-center gap-3">
          <img src={mark} alt="" className="size-10" />
          <div>
            <h1 className="text-lg leading-tight font-semibold">Sign in to Tenantry</h1>
            <p className="text-sm text-ink-soft">Adapters, usage and keys of your tenant</p>
          </div>
        </div>
        {ended && (
          <p role="status" className="mb-4 rounded-lg bg-warn-wash px-3 py-2 text-sm text-warn">
            Your session has ended: it ran out, or its key was revoked or its tenant suspended. Sign in to go
            on where you were.
          </p>
        )}
        <form
          onSubmit={submit}
          noValidate
          className="grid gap-4 rounded-xl border border-line bg-surface p-5"
        >
          <Field
            label="API key"
            error={error}
            hint="It is exchanged for a session of twelve hours and not kept in this browser."
          >
            {(field) => (
              <Input
                {...field}
                type="password"
                name="api-key"
                autoComplete="current-password"
                spellCheck={false}
                placeholder="tny_live_…"
                className="font-mono"
                value={key}
                onChange={(event) => setKey(event.target.value)}
              />
            )}
          </Field>
          <Button type="submit" look="solid" disabled={busy}>
            <KeyRound aria-hidden /> {busy ? "Signing in…" : "Sign in"}
          </Button>
        </form>
        <p className="mt-4 text-sm text-ink-soft">
          On the server,{" "}
          <code className="rounded bg-raised px-1 py-0.5 font-mono text-xs text-ink">tenantry login</code>{" "}
          prints a link that signs one browser in, once.
        </p>
      </div>
    </main>
  );
}

function explain(failure: unknown, wasLink: boolean): string {
  if (failure instanceof ApiError && failure.status === 401) {
    return wasLink
      ? "This link was used before, or is older than fifteen minutes. Ask for a new one, or use a key."
      : "This key is not valid here: mistyped, revoked, expired, or of a suspended tenant.";
  }
  return failure instanceof Error ? failure.message : "Signing in failed.";
}
