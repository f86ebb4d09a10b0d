import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ColumnDef } from "@tanstack/react-table";
import { Plus } from "lucide-react";
import { type FormEvent, useCallback, useMemo, useState } from "react";
import { Confirm } from "@/components/confirm";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { StateChip } from "@/components/ui/chip";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { ImpactList } from "@/features/adapters/impact";
import { CreateKey } from "@/features/keys/create-key";
import { Rooms } from "@/features/limits";
import { answer, api } from "@/lib/api/client";
import type { KeyCreate, TenantView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { LimitsForm } from "./limits-form";

export function TenantsPage() {
  const toast = useToast();
  const query = usePages<TenantView>(["tenants"], (after) =>
    answer(api.GET("/api/v1/tenants", { params: { query: { limit: 50, after } } })),
  );
  const [making, setMaking] = useState(false);
  const [shown, setShown] = useState<TenantView | null>(null);
  const [suspending, setSuspending] = useState<TenantView | null>(null);

  const setStatus = useSetStatus();
  const columns = useMemo<ColumnDef<TenantView, unknown>[]>(() => {
    return [
      { header: "Tenant", cell: ({ row }) => <span className="font-medium">{row.original.name}</span> },
      { header: "State", cell: ({ row }) => <StateChip state={row.original.status} /> },
      { header: "Since", meta: { wideOnly: true }, cell: ({ row }) => dateTime(row.original.created_at) },
      {
        id: "acts",
        header: () => <span className="sr-only">Acts</span>,
        meta: { numeric: true },
        cell: ({ row: { original: tenant } }) => (
          <span className="flex justify-end gap-2">
            <Button size="sm" onClick={() => setShown(tenant)}>
              Limits<span className="sr-only"> of {tenant.name}</span>
            </Button>
            {tenant.status === "active" ? (
              <Button size="sm" look="danger" onClick={() => setSuspending(tenant)}>
                Suspend<span className="sr-only"> {tenant.name}</span>
              </Button>
            ) : (
              <Button
                size="sm"
                onClick={() =>
                  void setStatus(tenant, "active").then(
                    () => toast(`${tenant.name} is served again.`),
                    (failure: unknown) =>
                      toast(failure instanceof Error ? failure.message : "It did not work.", "bad"),
                  )
                }
              >
                Resume<span className="sr-only"> {tenant.name}</span>
              </Button>
            )}
          </span>
        ),
      },
    ];
  }, [setStatus, toast]);

  return (
    <>
      <PageHeader
        title="Tenants"
        description="Whose adapters and keys are served here. A suspended tenant is refused everywhere; nothing of it is deleted."
        actions={
          <Button look="solid" onClick={() => setMaking(true)}>
            <Plus aria-hidden /> Create tenant
          </Button>
        }
      />
      <Panel flush>
        <View query={query}>
          {(tenants) => (
            <DataTable
              caption="Tenants"
              columns={columns}
              rows={tenants}
              rowKey={(tenant) => tenant.id}
              empty={<Empty title="No tenants yet">Create one, and give it its first key.</Empty>}
              footer={<More query={query} shown={tenants.length} />}
            />
          )}
        </View>
      </Panel>
      {making && <CreateTenant onClose={() => setMaking(false)} />}
      {shown && <TenantDialog tenant={shown} onClose={() => setShown(null)} />}
      {suspending && (
        <Confirm
          title={`Suspend ${suspending.name}`}
          name={suspending.name}
          act="Suspend"
          impact={<SuspendImpact tenant={suspending} />}
          onClose={() => setSuspending(null)}
          onAct={async () => {
            await setStatus(suspending, "suspended");
            toast(`${suspending.name} is suspended.`);
          }}
        />
      )}
    </>
  );
}

function useSetStatus() {
  const client = useQueryClient();
  return useCallback(
    async (tenant: TenantView, status: "active" | "suspended") => {
      const path = { tenant_id: tenant.id };
      await answer(api.PATCH("/api/v1/tenants/{tenant_id}", { params: { path }, body: { status } }));
      await client.invalidateQueries({ queryKey: ["tenants"] });
    },
    [client],
  );
}

function SuspendImpact({ tenant }: { tenant: TenantView }) {
  const impact = useQuery({
    queryKey: ["impact", "tenant", tenant.id],
    queryFn: () =>
      answer(api.GET("/api/v1/tenants/{tenant_id}/impact", { params: { path: { tenant_id: tenant.id } } })),
    staleTime: 0,
  });
  return (
    <>
      <p>Every new request of this tenant is refused, and its people are signed out, within two seconds.</p>
      {impact.data ? (
        <ImpactList impact={impact.data} />
      ) : (
        <p className="mt-1">
          {impact.error ? "What it hits could not be counted." : "Counting what it hits…"}
        </p>
      )}
    </>
  );
}

function CreateTenant({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const toast = useToast();
  const [name, setName] = useState("");
  const [error, setError] = useState<string | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    try {
      await answer(api.POST("/api/v1/tenants", { body: { name } }));
      await client.invalidateQueries({ queryKey: ["tenants"] });
      toast(`${name} is created. Give it its first key under Limits.`);
      onClose();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : "The tenant was not created.");
    }
  }

  return (
    <Dialog open onClose={onClose} title="Create a tenant">
      <form onSubmit={submit} noValidate className="grid gap-4">
        <Field label="Name" hint="a–z, 0–9, '.', '_' and '-'. It cannot be changed." error={error}>
          {(field) => (
            <Input
              {...field}
              maxLength={63}
              autoComplete="off"
              spellCheck={false}
              value={name}
              onChange={(e) => setName(e.target.value.trim())}
            />
          )}
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="solid">
            Create tenant
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

function TenantDialog({ tenant, onClose }: { tenant: TenantView; onClose: () => void }) {
  const path = { tenant_id: tenant.id };
  const rooms = useQuery({
    queryKey: ["limits", "tenant", tenant.id],
    queryFn: async () =>
      (await answer(api.GET("/api/v1/tenants/{tenant_id}/limits", { params: { path, query: { limit: 1 } } })))
        .data,
  });
  const create = (body: KeyCreate) =>
    answer(api.POST("/api/v1/tenants/{tenant_id}/keys", { params: { path }, body }));
  return (
    <Dialog open onClose={onClose} title={`Limits of ${tenant.name}`} wide>
      <div className="grid gap-5">
        <View query={rooms} rows={3}>
          {([room]) =>
            room ? (
              <>
                <Rooms room={room} />
                <LimitsForm tenant={tenant} room={room} />
              </>
            ) : null
          }
        </View>
        <div className="flex items-center justify-between gap-4 border-t border-line pt-4 text-sm">
          <span className="text-ink-soft">A key lets the tenant in; it is shown once.</span>
          <CreateKey create={create} label="Create key" />
        </div>
      </div>
    </Dialog>
  );
}
