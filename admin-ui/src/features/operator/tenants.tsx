import { useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
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
import { NameSearch } from "@/components/ui/name-search";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { answer, api } from "@/lib/api/client";
import type { TenantView } from "@/lib/api/schema";
import { dateTime } from "@/lib/format";
import { TenantDialog } from "./tenant-dialog";
import { DeleteTenant, SuspendTenant, useSetStatus } from "./tenant-ends";

/** All of it is in the URL. tenant: whose dialog is open. name: part of one, by which the server filters. */
export interface TenantSearch {
  tenant?: string;
  name?: string;
}

export function TenantsPage({ search }: { search: TenantSearch }) {
  const toast = useToast();
  const navigate = useNavigate();
  const set = (change: TenantSearch, replace = false) =>
    void navigate({ to: "/operator/tenants", search: (old) => ({ ...old, ...change }), replace });
  const query = usePages<TenantView>(["tenants", "list", search.name], (after) =>
    answer(api.GET("/api/v1/tenants", { params: { query: { name: search.name, limit: 50, after } } })),
  );
  const [making, setMaking] = useState(false);
  const [ending, setEnding] = useState<{ tenant: TenantView; act: "suspend" | "delete" } | null>(null);

  const setStatus = useSetStatus();
  const columns = useMemo<ColumnDef<TenantView, unknown>[]>(() => {
    return [
      {
        header: "Tenant",
        cell: ({ row: { original: tenant } }) => (
          <Link
            to="/operator/tenants"
            search={(old) => ({ ...old, tenant: tenant.id })}
            className="font-medium text-accent underline-offset-2 [overflow-wrap:anywhere] hover:underline"
          >
            {tenant.name}
          </Link>
        ),
      },
      { header: "State", cell: ({ row }) => <StateChip state={row.original.status} /> },
      { header: "Since", meta: { wideOnly: true }, cell: ({ row }) => dateTime(row.original.created_at) },
      {
        id: "acts",
        header: () => <span className="sr-only">Acts</span>,
        meta: { numeric: true },
        cell: ({ row: { original: tenant } }) => (
          <span className="flex justify-end gap-2">
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
      <Panel flush aside={<NameSearch value={search.name} onSearch={(name) => set({ name }, true)} />}>
        <View query={query}>
          {(tenants) => (
            <DataTable
              caption="Tenants"
              columns={columns}
              rows={tenants}
              rowKey={(tenant) => tenant.id}
              empty={
                search.name ? (
                  <Empty
                    title="No tenant is called that"
                    action={<Button onClick={() => set({ name: undefined })}>Show all</Button>}
                  />
                ) : (
                  <Empty title="No tenants yet">Create one, and give it its first key.</Empty>
                )
              }
              footer={<More query={query} shown={tenants.length} />}
            />
          )}
        </View>
      </Panel>
      {making && (
        <CreateTenant
          onClose={() => setMaking(false)}
          onMade={(tenant) => {
            setMaking(false);
            set({ tenant: tenant.id });
          }}
        />
      )}
      {search.tenant && (
        <TenantDialog key={search.tenant} id={search.tenant} onClose={() => set({ tenant: undefined })} />
      )}
      {ending?.act === "suspend" && <SuspendTenant tenant={ending.tenant} onClose={() => setEnding(null)} />}
      {ending?.act === "delete" && <DeleteTenant tenant={ending.tenant} onClose={() => setEnding(null)} />}
    </>
  );
}

function CreateTenant({ onClose, onMade }: { onClose: () => void; onMade: (tenant: TenantView) => void }) {
  const client = useQueryClient();
  const toast = useToast();
  const [name, setName] = useState("");
  const [error, setError] = useState<string | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    try {
      const made = await answer(api.POST("/api/v1/tenants", { body: { name } }));
      await client.invalidateQueries({ queryKey: ["tenants"] });
      toast(`${made.name} is created. Give it its first key here.`);
      onMade(made);
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
