import type { ColumnDef } from "@tanstack/react-table";
import { UserPlus } from "lucide-react";
import { useMemo, useState } from "react";
import { Confirm } from "@/components/confirm";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { PageHeader } from "@/components/layout/page";
import { ShownOnce } from "@/components/shown-once";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { ImpactLines } from "@/features/adapters/impact";
import { useSession } from "@/features/session/session";
import type { MemberView, SignInLink } from "@/lib/api/schema";
import { ago, dateTime } from "@/lib/format";
import { InviteDialog } from "./invite";
import { endable, grantable, ROLES, roleLabel, useTeam, useTeamActs } from "./team";

const BEYOND = "Your key may do less than this person.";

export function TeamPage() {
  const query = useTeam();
  const acts = useTeamActs();
  const toast = useToast();
  const { me } = useSession();
  const [inviting, setInviting] = useState(false);
  const [removing, setRemoving] = useState<MemberView | null>(null);
  const [linked, setLinked] = useState<{ member: MemberView; link: SignInLink } | null>(null);

  const { link } = acts;
  const gives = useMemo(() => grantable(me.scopes), [me.scopes]);
  const columns = useMemo<ColumnDef<MemberView, unknown>[]>(
    () => [
      {
        header: "Person",
        cell: ({ row: { original: m } }) => (
          <span className="flex min-w-24 flex-wrap items-center gap-2 font-medium [overflow-wrap:anywhere]">
            {m.name} {m.key === me.key && <Chip tone="accent">you</Chip>}
          </span>
        ),
      },
      { header: "Role", cell: ({ row }) => roleLabel(row.original.role) },
      {
        header: "Last signed in",
        meta: { wideOnly: true },
        cell: ({ row: { original: m } }) => (
          <span title={dateTime(m.last_signed_in_at)}>{ago(m.last_signed_in_at)}</span>
        ),
      },
      {
        header: "Browsers now",
        meta: { numeric: true, wideOnly: true },
        cell: ({ row }) => row.original.browsers,
      },
      {
        header: "Since",
        meta: { wideOnly: true },
        cell: ({ row }) => dateTime(row.original.created_at),
      },
      {
        id: "acts",
        header: () => <span className="sr-only">Acts</span>,
        meta: { numeric: true },
        cell: ({ row: { original: m } }) => (
          <span className="flex justify-end gap-2 max-sm:flex-col max-sm:items-end">
            <Button
              size="sm"
              disabled={!gives.some((role) => role.value === m.role)}
              title={gives.some((role) => role.value === m.role) ? undefined : BEYOND}
              onClick={() =>
                void link(m.key).then(
                  (made) => setLinked({ member: m, link: made }),
                  (failure: unknown) =>
                    toast(failure instanceof Error ? failure.message : "No link was made.", "bad"),
                )
              }
            >
              New link<span className="sr-only"> for {m.name}</span>
            </Button>
            <Button
              size="sm"
              look="danger"
              disabled={!endable(me.scopes, m.role)}
              title={endable(me.scopes, m.role) ? undefined : BEYOND}
              onClick={() => setRemoving(m)}
            >
              Remove<span className="sr-only"> {m.name}</span>
            </Button>
          </span>
        ),
      },
    ],
    [me.key, me.scopes, gives, link, toast],
  );

  return (
    <>
      <PageHeader
        title="Team"
        description="The people who may sign in to this tenant. Services have keys of their own, under API keys."
        actions={
          <Button look="solid" onClick={() => setInviting(true)}>
            <UserPlus aria-hidden /> Invite
          </Button>
        }
      />
      <div className="grid gap-4">
        <Panel flush>
          <View query={query}>
            {(members) => (
              <DataTable
                caption="Team"
                columns={columns}
                rows={members}
                rowKey={(member) => member.key}
                empty={
                  <Empty
                    title="Nobody is invited yet"
                    action={
                      <Button look="solid" onClick={() => setInviting(true)}>
                        <UserPlus aria-hidden /> Invite the first
                      </Button>
                    }
                  >
                    A person signs in by a link, then with a key of their own. Removing them ends both.
                  </Empty>
                }
                footer={<More query={query} shown={members.length} />}
              />
            )}
          </View>
        </Panel>
        <Panel title="Roles">
          <dl className="grid gap-3 text-sm sm:grid-cols-3">
            {ROLES.map((role) => (
              <div key={role.value}>
                <dt className="font-medium">{role.label}</dt>
                <dd className="text-ink-soft">{role.hint}</dd>
              </div>
            ))}
          </dl>
          {gives.length < ROLES.length && (
            <p className="mt-3 text-sm text-ink-soft">
              Your key may {me.scopes.join(", ")}: it invites and makes links for nobody who may do more, and
              removes nobody who may do all of that and more.
            </p>
          )}
        </Panel>
      </div>
      {inviting && <InviteDialog onClose={() => setInviting(false)} />}
      {linked && (
        <ShownOnce
          title={`A link for ${linked.member.name}`}
          description="Send it to this person alone. It is shown this once and kept nowhere."
          secrets={[
            {
              label: "Sign-in link",
              hint: `Works once, until ${dateTime(linked.link.expires_at)}.`,
              text: location.origin + linked.link.path,
            },
          ]}
          done="Sent"
          onClose={() => setLinked(null)}
        />
      )}
      {removing && (
        <Confirm
          title={`Remove ${removing.name}`}
          name={removing.name}
          act="Remove"
          impact={
            <ImpactLines query={{ key: removing.key }}>
              They are signed out everywhere within two seconds, and their key and links work no more.
              {removing.key === me.key && " This is you."}
            </ImpactLines>
          }
          onClose={() => setRemoving(null)}
          onAct={async () => {
            await acts.remove(removing.key);
            toast(`${removing.name} is removed.`);
          }}
        />
      )}
    </>
  );
}
