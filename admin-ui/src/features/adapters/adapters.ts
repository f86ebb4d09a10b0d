import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { answer, api } from "@/lib/api/client";
import type {
  AdapterRow,
  AdapterStatsView,
  AliasMove,
  AliasView,
  ImpactView,
  RegistrySchemasAdapterView,
  State,
  VersionView,
} from "@/lib/api/schema";

export interface AdapterSearch {
  name?: string;
  state?: State;
  sort?: "created" | "name";
  order?: "asc" | "desc";
}

export function useAdapters(search: AdapterSearch) {
  return usePages<AdapterRow>(["adapters", "list", search], (after) =>
    answer(api.GET("/api/v1/adapters", { params: { query: { ...search, limit: 50, after } } })),
  );
}

/** Use, speed and residency of the adapters on the page, and of no others; a page of rows is a page of ids. */
export function useAdapterStats(ids: readonly string[]) {
  const asked = ids.slice(-100);
  return useQuery({
    queryKey: ["adapter-stats", asked],
    queryFn: async () => {
      const found = await answer(
        api.GET("/api/v1/adapter-stats", {
          params: { query: { adapter: [...asked] } },
          querySerializer: { array: { style: "form", explode: true } },
        }),
      );
      return new Map<string, AdapterStatsView>(found.data.map((one) => [one.adapter, one]));
    },
    enabled: asked.length > 0,
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });
}

export function useAdapter(name: string) {
  return useQuery({
    queryKey: ["adapters", "one", name],
    queryFn: () =>
      answer(
        api.GET("/api/v1/adapters/{name}", { params: { path: { name } } }),
      ) as Promise<RegistrySchemasAdapterView>,
  });
}

export function useVersions(name: string) {
  return usePages<VersionView>(["adapters", "versions", name], (after) =>
    answer(
      api.GET("/api/v1/adapters/{name}/versions", {
        params: { path: { name }, query: { limit: 20, after } },
      }),
    ),
  );
}

export function useMoves(name: string, alias: string) {
  return usePages<AliasMove>(["adapters", "moves", name, alias], (after) =>
    answer(
      api.GET("/api/v1/adapters/{name}/aliases/{alias}/history", {
        params: { path: { name, alias }, query: { limit: 20, after } },
      }),
    ),
  );
}

export function useImpact(query: { key?: string; adapter?: string; version?: number }) {
  return useQuery({
    queryKey: ["impact", query],
    queryFn: () => answer(api.GET("/api/v1/impact", { params: { query } })) as Promise<ImpactView>,
    staleTime: 0,
  });
}

export interface Move {
  alias: string;
  version: number;
  reason: string;
  /** Of the alias as the person saw it; null creates it. Someone faster makes the move fail, not overwrite. */
  etag: string | null;
}

export function useAdapterActs(name: string) {
  const client = useQueryClient();
  const refresh = () => client.invalidateQueries({ queryKey: ["adapters"] });
  return {
    refresh,
    async move({ alias, version, reason, etag }: Move): Promise<AliasView> {
      const moved = (await answer(
        api.PUT("/api/v1/adapters/{name}/aliases/{alias}", {
          params: { path: { name, alias }, header: etag ? { "If-Match": etag } : {} },
          body: { version, reason },
        }),
      )) as AliasView;
      await refresh();
      return moved;
    },
    async retire(number: number): Promise<void> {
      await answer(
        api.DELETE("/api/v1/adapters/{name}/versions/{number}", { params: { path: { name, number } } }),
      );
      await refresh();
    },
    async remove(etag: string): Promise<void> {
      await answer(
        api.DELETE("/api/v1/adapters/{name}", {
          params: { path: { name }, header: { "If-Match": etag } },
        }),
      );
      await refresh();
    },
  };
}
