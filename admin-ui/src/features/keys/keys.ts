import { useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { answer, api } from "@/lib/api/client";
import type { KeyCreate, KeyView } from "@/lib/api/schema";

export function useKeys() {
  return usePages<KeyView>(["keys"], (after) =>
    answer(api.GET("/api/v1/keys", { params: { query: { limit: 50, after } } })),
  );
}

export function useKeyActs() {
  const client = useQueryClient();
  const refresh = () => client.invalidateQueries({ queryKey: ["keys"] });
  return {
    async create(body: KeyCreate): Promise<KeyView> {
      const made = await answer(api.POST("/api/v1/keys", { body }));
      void refresh();
      return made;
    },
    async revoke(id: string): Promise<void> {
      await answer(api.DELETE("/api/v1/keys/{key_id}", { params: { path: { key_id: id } } }));
      await refresh();
    },
  };
}

type KeyState = "active" | "revoked" | "expired";

export function stateOf(key: Pick<KeyView, "revoked_at" | "expires_at">, now = Date.now()): KeyState {
  if (key.revoked_at) return "revoked";
  return key.expires_at && new Date(key.expires_at).getTime() <= now ? "expired" : "active";
}
