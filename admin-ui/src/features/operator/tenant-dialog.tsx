import { useQuery } from "@tanstack/react-query";
import { Button } from "@/components/ui/button";
import { StateChip } from "@/components/ui/chip";
import { Dialog } from "@/components/ui/dialog";
import { Empty, View } from "@/components/ui/states";
import { CreateKey } from "@/features/keys/create-key";
import { Rooms } from "@/features/limits";
import { answer, api } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { KeyCreate, TenantView } from "@/lib/api/schema";
import { LimitsForm } from "./limits-form";
import { TenantWallet } from "./wallet";

/** What else stands in the URL names nobody, and must not be put into a path. */
const ID = /^ten_[0-9a-f]{32}$/;

/** id: as the URL has it, whatever it is. */
export function TenantDialog({ id, onClose }: { id: string; onClose: () => void }) {
  const spelled = ID.test(id);
  const query = useQuery({
    queryKey: ["tenants", "one", id],
    queryFn: () => answer(api.GET("/api/v1/tenants/{tenant_id}", { params: { path: { tenant_id: id } } })),
    enabled: spelled,
    retry: false,
  });
  const nobody = !spelled || (query.error instanceof ApiError && query.error.status === 404);
  const tenant = nobody ? undefined : query.data;
  const gone = nobody || tenant?.status === "deleted";
  return (
    <Dialog open onClose={onClose} title={tenant?.name ?? "Tenant"} wide>
      {gone ? (
        <Empty
          title={tenant ? "This tenant is deleted" : "There is no such tenant"}
          action={<Button onClick={onClose}>Show all tenants</Button>}
        >
          {tenant ? "Its usage and its ledger are kept with the books." : "The address names nobody."}
        </Empty>
      ) : (
        <View query={query} rows={6}>
          {(found) => <Tenant tenant={found} />}
        </View>
      )}
    </Dialog>
  );
}

function Tenant({ tenant }: { tenant: TenantView }) {
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
    <div className="grid gap-5">
      <div className="flex flex-wrap items-center justify-between gap-x-4 gap-y-2 text-sm">
        <span className="flex items-center gap-2 text-ink-soft">
          <StateChip state={tenant.status} /> A key lets the tenant in; it is shown once.
        </span>
        <CreateKey create={create} label="Create a key for this tenant" />
      </div>
      <section aria-label="Limits" className="grid gap-5">
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
      </section>
      <TenantWallet tenant={tenant} />
    </div>
  );
}
