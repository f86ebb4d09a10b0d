import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/button";
import { Copy } from "@/components/ui/copy";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import type { InvitationView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { ROLES, type Role, useTeamActs } from "./team";

export function InviteDialog({ onClose }: { onClose: () => void }) {
  const acts = useTeamActs();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("member");
  const [error, setError] = useState<string | null>(null);
  const [made, setMade] = useState<InvitationView | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!name.trim()) {
      setError("Whom is it for? A name or an address that others know.");
      return;
    }
    try {
      setMade(await acts.invite({ name: name.trim(), role }));
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : "The invitation was not made.");
    }
  }

  if (made) {
    return (
      <Dialog
        open
        onClose={onClose}
        title={`${made.member.name} is invited`}
        description="Send both to this person alone. They are shown this once and kept nowhere."
      >
        <div className="grid gap-4">
          <Secret
            label="Sign-in link"
            hint={`Works once, until ${dateTime(made.link.expires_at)}.`}
            text={location.origin + made.link.path}
          />
          <Secret
            label="Their own key"
            hint="For every later sign-in, and for the API. It ends when they are removed."
            text={made.secret}
          />
        </div>
        <DialogActions>
          <Button look="solid" onClick={onClose}>
            Sent
          </Button>
        </DialogActions>
      </Dialog>
    );
  }
  return (
    <Dialog open onClose={onClose} title="Invite a person">
      <form onSubmit={submit} noValidate className="grid gap-4">
        <Field label="Name" error={error} hint="What others know the person by.">
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
        <Field label="Role" hint={ROLES.find((one) => one.value === role)?.hint}>
          {(field) => (
            <Select id={field.id} value={role} onChange={setRole} choices={ROLES} className="w-full" />
          )}
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="solid">
            Invite
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

export function Secret({ label, hint, text }: { label: string; hint: string; text: string }) {
  return (
    <div className="grid gap-1.5">
      <div className="flex items-center justify-between gap-3">
        <span className="text-sm font-medium">{label}</span>
        <Copy text={text} label={`Copy ${label.toLowerCase()}`} />
      </div>
      <output className="block rounded-lg border border-line bg-raised p-3 font-mono text-xs break-all select-all">
        {text}
      </output>
      <p className="text-[0.85rem] text-ink-soft">{hint}</p>
    </div>
  );
}
