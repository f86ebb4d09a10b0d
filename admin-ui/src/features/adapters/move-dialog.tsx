import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input, Textarea } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { useToast } from "@/components/ui/toast";
import { ApiError } from "@/lib/api/errors";
import type { RegistrySchemasAdapterView, VersionView } from "@/lib/api/schema";
import { useAdapterActs } from "./adapters";
import { aliasProblem } from "./upload";

interface Props {
  adapter: RegistrySchemasAdapterView;
  ready: readonly VersionView[];
  /** "" asks for a new alias's name. */
  alias: string;
  version?: number;
  onClose: () => void;
}

/** Promote and roll back are one act: an alias moves, by compare-and-set, and its history says why. */
export function MoveDialog({ adapter, ready, alias, version, onClose }: Props) {
  const toast = useToast();
  const acts = useAdapterActs(adapter.name);
  const current = adapter.aliases?.find((one) => one.alias === alias);
  // What the person saw when the dialog opened is what the move is compared with.
  const [seen] = useState(current);
  const [name, setName] = useState(alias);
  const [target, setTarget] = useState(String(version ?? ready[0]?.number ?? ""));
  const [reason, setReason] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [misnamed, setMisnamed] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const number = Number(target);
  const back = seen !== undefined && number < seen.version;
  const verb = seen === undefined ? "Create alias" : back ? "Roll back" : "Promote";

  async function submit(event: FormEvent) {
    event.preventDefault();
    const wrong = alias === "" ? aliasProblem(name, adapter.aliases ?? []) : null;
    setMisnamed(wrong);
    if (wrong) return;
    setBusy(true);
    setError(null);
    try {
      await acts.move({ alias: name, version: number, reason, etag: seen?.etag ?? null });
      toast(`${adapter.name}@${name} answers with version ${number} now.`);
      onClose();
    } catch (failure) {
      setError(
        failure instanceof ApiError && failure.status === 412
          ? "Someone moved this alias since you opened this. Nothing was changed: close, look again, and decide anew."
          : failure instanceof Error
            ? failure.message
            : "The alias was not moved.",
      );
      void acts.refresh();
      setBusy(false);
    }
  }

  const choices = (
    ready.some((one) => one.number === number) || !number ? ready : [{ number }, ...ready]
  ).map((one) => ({
    value: String(one.number),
    label: `Version ${one.number}${one.number === seen?.version ? " (now)" : ""}`,
  }));
  return (
    <Dialog
      open
      onClose={onClose}
      title={seen ? `${verb} ${adapter.name}` : `New alias of ${adapter.name}`}
      description={
        seen ? (
          <>
            <b className="font-medium text-ink">{name}</b> answers with version {seen.version} now. New
            requests go to version {target || "…"} at once; those under way finish on what they began with.
          </>
        ) : (
          <>A second name: {adapter.name}@name answers with the version it points at.</>
        )
      }
    >
      <form onSubmit={submit} className="grid gap-4">
        {alias === "" && (
          <Field label="Alias" error={misnamed}>
            {(field) => (
              <Input
                {...field}
                required
                maxLength={63}
                autoComplete="off"
                placeholder="canary"
                value={name}
                onChange={(e) => setName(e.target.value.trim())}
              />
            )}
          </Field>
        )}
        <Field label="Version">
          {(field) => (
            <Select id={field.id} value={target} onChange={setTarget} choices={choices} className="w-full" />
          )}
        </Field>
        <Field label="Why" hint="Kept in the alias's history." error={error}>
          {(field) => (
            <Textarea
              {...field}
              rows={2}
              maxLength={500}
              value={reason}
              onChange={(event) => setReason(event.target.value)}
            />
          )}
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="solid" disabled={busy || !number || !name || number === seen?.version}>
            {busy ? "Moving…" : `${verb}${seen ? ` to ${target}` : ""}`}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
