import { type FormEvent, type ReactNode, useState } from "react";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";

interface Props {
  title: string;
  /** What will be hit: requests in flight, sessions, keys. */
  impact: ReactNode;
  /** What stays after it, said plainly; and choices that belong to it. */
  children?: ReactNode;
  /** Why it cannot be done now; then nothing is asked for. */
  blocked?: string | null;
  /** Must be typed before the act is possible. */
  name: string;
  act: string;
  onAct: () => Promise<void>;
  onClose: () => void;
}

/** A destructive act: says what it hits, asks for the name, and shows the refusal where the person looks. */
export function Confirm({ title, impact, children, blocked, name, act, onAct, onClose }: Props) {
  const [typed, setTyped] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (busy || blocked) return;
    if (typed !== name) {
      setError(`Type ${name} to go on.`);
      return;
    }
    setBusy(true);
    try {
      await onAct();
      onClose();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : "It did not work.");
      setBusy(false);
    }
  }

  return (
    <Dialog open onClose={onClose} title={title}>
      <form onSubmit={submit} className="grid gap-4">
        <div className="rounded-lg bg-bad-wash px-3 py-2.5 text-sm">{impact}</div>
        {children}
        {blocked ? (
          <p role="alert" className="text-sm font-medium text-bad">
            {blocked}
          </p>
        ) : (
          <Field label={`Type “${name}” to confirm`} error={error}>
            {(field) => (
              <Input
                {...field}
                autoComplete="off"
                spellCheck={false}
                value={typed}
                onChange={(event) => setTyped(event.target.value)}
              />
            )}
          </Field>
        )}
        <DialogActions>
          <Button onClick={onClose}>Keep it</Button>
          <Button type="submit" look="dangerSolid" disabled={busy || Boolean(blocked)}>
            {busy ? "Working…" : act}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
