import { useQuery, useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { answer, api } from "@/lib/api/client";
import type { SessionPatch, SessionSummary, TurnView } from "@/lib/api/schema";

export function useSessions(model: string | undefined) {
  return usePages<SessionSummary>(["sessions", "list", model], (after) =>
    answer(api.GET("/api/v1/sessions", { params: { query: { limit: 50, after, model } } })),
  );
}

export function useSessionOf(id: string) {
  return useQuery({
    queryKey: ["sessions", "one", id],
    queryFn: () => answer(api.GET("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } } })),
  });
}

export function useTurns(id: string) {
  return usePages<TurnView>(["sessions", "turns", id], (after) =>
    answer(
      api.GET("/api/v1/sessions/{session_id}/turns", {
        params: { path: { session_id: id }, query: { limit: 50, after } },
      }),
    ),
  );
}

export function useSessionActs(id: string) {
  const client = useQueryClient();
  const params = { path: { session_id: id } };
  const refresh = () => client.invalidateQueries({ queryKey: ["sessions"] });
  return {
    async change(body: SessionPatch): Promise<void> {
      await answer(api.PATCH("/api/v1/sessions/{session_id}", { params, body }));
      await refresh();
    },
    async fork(response: string): Promise<SessionSummary> {
      const made = await answer(
        api.POST("/api/v1/sessions/{session_id}/fork", { params, body: { response } }),
      );
      await refresh();
      return made as SessionSummary;
    },
    async remove(): Promise<void> {
      await answer(api.DELETE("/api/v1/sessions/{session_id}", { params }));
      client.removeQueries({ queryKey: ["sessions", "one", id] });
      await client.invalidateQueries({ queryKey: ["sessions", "list"] });
    },
  };
}
