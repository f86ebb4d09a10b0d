import { type FormEvent, useState } from "react";
import { ShownOnce } from "@/components/shown-once";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { useSession } from "@/features/session/session";
import type { InvitationView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { grantable, ROLES, type Role, useTeamActs } from "./team";

export function InviteDialog({ onClose }: { onClose: () => void }) {
  const acts = useTeamActs();
  const [name, setName] = useState("");
  const { me } = useSession();
  const roles = grantable(me.scopes);
  const [role, setRole] = useState<Role | undefined>(roles[0]?.value);
  const [error, setError] = useState<string | null>(null);
  const [made, setMade] = useState<InvitationView | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!name.trim()) {
      setError("Whom is it for? A name or an address that others know.");
      return;
    }
    if (!role) return;
    try {
      setMade(await acts.invite({ name: name.trim(), role }));
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : "The invitation was not made.");
    }
  }

  if (made) {
    return (
      <ShownOnce
        title={`${made.member.name} is invited`}
        description="Send both to this person alone. They are shown this once and kept nowhere."
        secrets={[
          {
            label: "Sign-in link",
            hint: `Works once, until ${dateTime(made.link.expires_at)}.`,
            text: location.origin + made.link.path,
          },
          {
            label: "Their own key",
            hint: "For every later sign-in, and for the API. It ends when they are removed.",
            text: made.secret,
          },
        ]}
        done="Sent"
        onClose={onClose}
      />
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
        <Field label="Role" hint={roles.find((one) => one.value === role)?.hint}>
          {(field) =>
            role && (
              <Select id={field.id} value={role} onChange={setRole} choices={roles} className="w-full" />
            )
          }
        </Field>
        {roles.length < ROLES.length && (
          <p className="text-[0.85rem] text-ink-soft">
            Nobody invites to more than they may do themselves: your key may {me.scopes.join(", ")}.
          </p>
        )}
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
