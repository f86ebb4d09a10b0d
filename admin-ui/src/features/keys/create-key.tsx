import { Plus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { ShownOnce } from "@/components/shown-once";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { mayGive } from "@/features/session/scopes";
import { useSession } from "@/features/session/session";
import { ApiError } from "@/lib/api/errors";
import type { KeyCreate, KeyView } from "@/lib/api/schema";

const LIVES = [
  { value: "0", label: "Does not expire" },
  { value: "30", label: "In 30 days" },
  { value: "90", label: "In 90 days" },
  { value: "365", label: "In a year" },
] as const;
const SCOPES = [
  { value: "both", label: "Inference and management", scopes: ["inference", "manage"] },
  { value: "inference", label: "Inference only", scopes: ["inference"] },
  { value: "manage", label: "Management only", scopes: ["manage"] },
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
  const { me } = useSession();
  const choices = SCOPES.filter((one) => mayGive(me.scopes, one.scopes));
  const [chosen, setChosen] = useState<(typeof SCOPES)[number]["value"]>(choices[0]?.value ?? "both");
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
          scopes: [...(SCOPES.find((one) => one.value === chosen)?.scopes ?? [])],
          expires_at: days ? new Date(Date.now() + days * 86_400_000).toISOString() : null,
        }),
      );
    } catch (failure) {
      setError(failure instanceof ApiError ? failure.message : "The key could not be made.");
    }
  }

  if (made) {
    return (
      <ShownOnce
        title={`Key “${made.name}”`}
        description="Copy it now: it is shown this once and kept nowhere."
        secrets={[{ label: "Key", text: made.key ?? "" }]}
        done="I have it"
        onClose={onClose}
      />
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
        <Field
          label="May do"
          hint={
            choices.length < SCOPES.length ? "A key may do no more than the one that makes it." : undefined
          }
        >
          {(field) => (
            <Select id={field.id} value={chosen} onChange={setChosen} choices={choices} className="w-full" />
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
