import type { ColumnDef } from "@tanstack/react-table";
import { useMemo, useState } from "react";
import { Confirm } from "@/components/confirm";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Chip, StateChip } from "@/components/ui/chip";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { ImpactLines } from "@/features/adapters/impact";
import { mayEnd } from "@/features/session/scopes";
import { useSession } from "@/features/session/session";
import type { KeyView } from "@/lib/api/schema";
import { ago, dateTime } from "@/lib/format";
import { CreateKey } from "./create-key";
import { stateOf, useKeyActs, useKeys } from "./keys";

export function KeysPage() {
  const query = useKeys();
  const acts = useKeyActs();
  const toast = useToast();
  const { me } = useSession();
  const [revoking, setRevoking] = useState<KeyView | null>(null);
  const columns = useMemo<ColumnDef<KeyView, unknown>[]>(
    () => [
      {
        header: "Name",
        cell: ({ row: { original: key } }) => (
          <div className="min-w-32">
            <div className="flex flex-wrap items-center gap-x-2 font-medium [overflow-wrap:anywhere]">
              {key.name} {key.person && <Chip>person</Chip>}
              {key.id === me.key && <Chip tone="accent">this session</Chip>}
            </div>
            <div className="font-mono text-xs text-ink-soft [overflow-wrap:anywhere]">{key.prefix}…</div>
          </div>
        ),
      },
      { header: "State", cell: ({ row }) => <StateChip state={stateOf(row.original)} /> },
      { header: "May do", meta: { wideOnly: true }, cell: ({ row }) => row.original.scopes.join(", ") },
      {
        header: "Last used",
        meta: { wideOnly: true },
        cell: ({ row }) => (
          <span title={dateTime(row.original.last_used_at)}>{ago(row.original.last_used_at)}</span>
        ),
      },
      {
        header: "Expires",
        meta: { wideOnly: true },
        cell: ({ row }) => (row.original.expires_at ? dateTime(row.original.expires_at) : "does not"),
      },
      {
        header: "Created",
        meta: { wideOnly: true },
        cell: ({ row }) => dateTime(row.original.created_at),
      },
      {
        id: "acts",
        header: () => <span className="sr-only">Acts</span>,
        meta: { numeric: true },
        cell: ({ row }) =>
          stateOf(row.original) === "active" &&
          mayEnd(me.scopes, row.original.scopes) && (
            <Button look="danger" size="sm" onClick={() => setRevoking(row.original)}>
              Revoke<span className="sr-only"> {row.original.name}</span>
            </Button>
          ),
      },
    ],
    [me.key, me.scopes],
  );

  return (
    <>
      <PageHeader
        title="API keys"
        description="A key proves who asks. Its secret is shown once; what is kept here can check it, not tell it."
        actions={<CreateKey create={acts.create} />}
      />
      <Panel flush>
        <View query={query}>
          {(keys) => (
            <DataTable
              caption="API keys"
              columns={columns}
              rows={keys}
              rowKey={(key) => key.id}
              empty={<Empty title="No keys yet">Create one, and paste it into your client.</Empty>}
              footer={<More query={query} shown={keys.length} />}
            />
          )}
        </View>
      </Panel>
      {revoking && (
        <Confirm
          title={`Revoke “${revoking.name}”`}
          name={revoking.name}
          act="Revoke for good"
          onClose={() => setRevoking(null)}
          onAct={async () => {
            await acts.revoke(revoking.id);
            toast(`${revoking.name} is revoked: every gateway refuses it within two seconds.`);
          }}
          impact={<RevokeImpact apiKey={revoking} own={revoking.id === me.key} />}
        />
      )}
    </>
  );
}

function RevokeImpact({ apiKey, own }: { apiKey: KeyView; own: boolean }) {
  return (
    <>
      <ImpactLines query={{ key: apiKey.id }}>
        Whatever uses this key is refused from now on; last used {ago(apiKey.last_used_at)}. It cannot be
        undone.
      </ImpactLines>
      {own && <p className="mt-2 font-medium">You are signed in with this key: you will be signed out.</p>}
    </>
  );
}
