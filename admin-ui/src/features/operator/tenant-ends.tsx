import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import { Confirm } from "@/components/confirm";
import { useToast } from "@/components/ui/toast";
import { Counted } from "@/features/adapters/impact";
import { answer, api } from "@/lib/api/client";
import type { TenantView } from "@/lib/api/schema";

interface Props {
  tenant: TenantView;
  onClose: () => void;
}

export function useSetStatus() {
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

/** Reversible: nothing is lost, and nobody gets in. */
export function SuspendTenant({ tenant, onClose }: Props) {
  const toast = useToast();
  const setStatus = useSetStatus();
  const impact = useTenantImpact(tenant);
  return (
    <Confirm
      title={`Suspend ${tenant.name}`}
      name={tenant.name}
      act="Suspend"
      impact={
        <>
          <p>
            Every new request of this tenant is refused, and its people are signed out, within two seconds.
          </p>
          <Counted impact={impact} />
        </>
      }
      onClose={onClose}
      onAct={async () => {
        await setStatus(tenant, "suspended");
        toast(`${tenant.name} is suspended.`);
      }}
    >
      <p className="text-sm text-ink-soft">
        What stays: everything. Requests under way finish, and “Resume” serves the tenant again.
      </p>
    </Confirm>
  );
}

/** For good: everything of the tenant goes but the books. */
export function DeleteTenant({ tenant, onClose }: Props) {
  const toast = useToast();
  const client = useQueryClient();
  const impact = useTenantImpact(tenant);
  return (
    <Confirm
      title={`Delete ${tenant.name}`}
      name={tenant.name}
      act="Delete for good"
      impact={
        <>
          <p>
            Keys, people, adapters, conversations and cached KV go, and requests under way end within two
            seconds. It cannot be undone.
          </p>
          <Counted impact={impact} />
        </>
      }
      onClose={onClose}
      onAct={async () => {
        await answer(
          api.DELETE("/api/v1/tenants/{tenant_id}", { params: { path: { tenant_id: tenant.id } } }),
        );
        await client.invalidateQueries({ queryKey: ["tenants"] });
        toast(`${tenant.name} is deleted.`);
      }}
    >
      <p className="text-sm text-ink-soft">
        What stays: its usage and its ledger, as long as the books are kept, and its name, which nobody gets
        again. To keep it from asking for a while, suspend it instead.
      </p>
    </Confirm>
  );
}

function useTenantImpact(tenant: TenantView) {
  return useQuery({
    queryKey: ["impact", "tenant", tenant.id],
    queryFn: () =>
      answer(api.GET("/api/v1/tenants/{tenant_id}/impact", { params: { path: { tenant_id: tenant.id } } })),
    staleTime: 0,
  });
}
