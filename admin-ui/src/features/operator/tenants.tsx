import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ColumnDef } from "@tanstack/react-table";
import { MoreHorizontal, PauseCircle, PlayCircle, Plus, Trash2 } from "lucide-react";
import { type FormEvent, useMemo, useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { StateChip } from "@/components/ui/chip";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Menu, MenuItem, MenuLine } from "@/components/ui/menu";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { CreateKey } from "@/features/keys/create-key";
import { Rooms } from "@/features/limits";
import { answer, api } from "@/lib/api/client";
import type { KeyCreate, TenantView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { LimitsForm } from "./limits-form";
import { DeleteTenant, SuspendTenant, useSetStatus } from "./tenant-ends";

export function TenantsPage() {
  const toast = useToast();
  const query = usePages<TenantView>(["tenants"], (after) =>
    answer(api.GET("/api/v1/tenants", { params: { query: { limit: 50, after } } })),
  );
  const [making, setMaking] = useState(false);
  const [shown, setShown] = useState<TenantView | null>(null);
  const [ending, setEnding] = useState<{ tenant: TenantView; act: "suspend" | "delete" } | null>(null);

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
            <Menu
              trigger={
                <Button look="quiet" size="icon" aria-label={`More for ${tenant.name}`}>
                  <MoreHorizontal aria-hidden />
                </Button>
              }
            >
              {tenant.status === "active" ? (
                <MenuItem onSelect={() => setEnding({ tenant, act: "suspend" })}>
                  <PauseCircle aria-hidden /> Suspend…
                </MenuItem>
              ) : (
                <MenuItem
                  onSelect={() =>
                    void setStatus(tenant, "active").then(
                      () => toast(`${tenant.name} is served again.`),
                      (failure: unknown) =>
                        toast(failure instanceof Error ? failure.message : "It did not work.", "bad"),
                    )
                  }
                >
                  <PlayCircle aria-hidden /> Resume
                </MenuItem>
              )}
              <MenuLine />
              <MenuItem danger onSelect={() => setEnding({ tenant, act: "delete" })}>
                <Trash2 aria-hidden /> Delete…
              </MenuItem>
            </Menu>
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
      {ending?.act === "suspend" && <SuspendTenant tenant={ending.tenant} onClose={() => setEnding(null)} />}
      {ending?.act === "delete" && <DeleteTenant tenant={ending.tenant} onClose={() => setEnding(null)} />}
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
