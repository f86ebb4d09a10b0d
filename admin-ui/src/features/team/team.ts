import { useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { mayEnd, mayGive } from "@/features/session/scopes";
import { answer, api } from "@/lib/api/client";
import type { InvitationView, Invite, MemberView, SignInLink } from "@/lib/api/schema";

export type Role = MemberView["role"];

/** Roles are what a key may do; the words here are the only place that explains them to people. */
export const ROLES: readonly { value: Role; label: string; hint: string; scopes: readonly string[] }[] = [
  {
    value: "member",
    label: "Member",
    hint: "Asks models: the playground and the API. Sees nothing else.",
    scopes: ["inference"],
  },
  {
    value: "manager",
    label: "Manager",
    hint: "Everything in this tenant but asking models, and letting others ask.",
    scopes: ["manage"],
  },
  {
    value: "admin",
    label: "Admin",
    hint: "Everything in this tenant, the whole team included.",
    scopes: ["inference", "manage"],
  },
];

/** Roles that somebody with these scopes may give, and make links for: nobody gives more than they have. */
export function grantable(scopes: readonly string[]) {
  return ROLES.filter((role) => mayGive(scopes, role.scopes));
}

/** Whether this role may be ended: not by those who may do less. */
export function endable(scopes: readonly string[], role: Role): boolean {
  const held = ROLES.find((one) => one.value === role)?.scopes ?? [];
  return mayEnd(scopes, held);
}

export function roleLabel(role: Role): string {
  return ROLES.find((one) => one.value === role)?.label ?? role;
}

export function useTeam() {
  return usePages<MemberView>(["team"], (after) =>
    answer(api.GET("/api/v1/team", { params: { query: { limit: 50, after } } })),
  );
}

export function useTeamActs() {
  const client = useQueryClient();
  const refresh = () =>
    Promise.all([
      client.invalidateQueries({ queryKey: ["team"] }),
      client.invalidateQueries({ queryKey: ["keys"] }),
    ]);
  return {
    async invite(body: Invite): Promise<InvitationView> {
      const made = await answer(api.POST("/api/v1/team", { body }));
      void refresh();
      return made;
    },
    link(key: string): Promise<SignInLink> {
      return answer(api.POST("/api/v1/team/{key}/links", { params: { path: { key } } }));
    },
    async remove(key: string): Promise<void> {
      await answer(api.DELETE("/api/v1/keys/{key_id}", { params: { path: { key_id: key } } }));
      await refresh();
    },
  };
}
