import { Plus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/button";
import { Copy } from "@/components/ui/copy";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { ApiError } from "@/lib/api/errors";
import type { KeyCreate, KeyView } from "@/lib/api/schema";

const LIVES = [
  { value: "0", label: "Does not expire" },
  { value: "30", label: "In 30 days" },
  { value: "90", label: "In 90 days" },
  { value: "365", label: "In a year" },
] as const;
const SCOPES = [
  { value: "both", label: "Inference and management" },
  { value: "inference", label: "Inference only" },
  { value: "manage", label: "Management only" },
] as const;

/** create: where the key is made, one's own tenant or, for the operator, another. */
export function CreateKey({
  create,
  label = "Create key",
}: {
  create: (body: KeyCreate) => Promise<KeyView>;
  label?: string;
}) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button look="solid" onClick={() => setOpen(true)}>
        <Plus aria-hidden /> {label}
      </Button>
      {open && <CreateDialog create={create} onClose={() => setOpen(false)} />}
    </>
  );
}

function CreateDialog({
  create,
  onClose,
}: {
  create: (body: KeyCreate) => Promise<KeyView>;
  onClose: () => void;
}) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<(typeof SCOPES)[number]["value"]>("both");
  const [life, setLife] = useState<(typeof LIVES)[number]["value"]>("0");
  const [error, setError] = useState<string | null>(null);
  const [made, setMade] = useState<KeyView | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!name.trim()) {
      setError("Give the key a name, so that you know later what uses it.");
      return;
    }
    const days = Number(life);
    try {
      setMade(
        await create({
          name: name.trim(),
          scopes: scopes === "both" ? ["inference", "manage"] : [scopes],
          expires_at: days ? new Date(Date.now() + days * 86_400_000).toISOString() : null,
        }),
      );
    } catch (failure) {
      setError(failure instanceof ApiError ? failure.message : "The key could not be made.");
    }
  }

  if (made) {
    return (
      <Dialog
        open
        onClose={onClose}
        title={`Key “${made.name}”`}
        description="Copy it now: it is shown this once and kept nowhere."
      >
        <output className="block rounded-lg border border-line bg-raised p-3 font-mono text-sm break-all select-all">
          {made.key}
        </output>
        <DialogActions>
          <Copy text={made.key ?? ""} label="Copy key" />
          <Button look="solid" size="sm" onClick={onClose}>
            I have it
          </Button>
        </DialogActions>
      </Dialog>
    );
  }
  return (
    <Dialog open onClose={onClose} title="Create an API key">
      <form onSubmit={submit} noValidate className="grid gap-4">
        <Field label="Name" error={error} hint="What will use it: a service, a person, a job.">
          {(field) => (
            <Input
              {...field}
              maxLength={100}
              autoComplete="off"
              value={name}
              onChange={(e) => setName(e.target.value)}
            />
          )}
        </Field>
        <Field label="May do">
          {(field) => (
            <Select id={field.id} value={scopes} onChange={setScopes} choices={SCOPES} className="w-full" />
          )}
        </Field>
        <Field label="Expires">
          {(field) => (
            <Select id={field.id} value={life} onChange={setLife} choices={LIVES} className="w-full" />
          )}
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="solid">
            Create key
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
