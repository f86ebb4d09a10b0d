import { keepPreviousData, useQueries, useQuery, useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { answer, api } from "@/lib/api/client";
import type {
  AdapterRow,
  AdapterStatsList,
  AdapterStatsView,
  AliasMove,
  AliasView,
  EngineRef,
  ImpactView,
  RegistrySchemasAdapterView,
  State,
  VersionView,
} from "@/lib/api/schema";

export interface AdapterSearch {
  name?: string;
  state?: State;
  on_device?: true;
  sort?: "created" | "name";
  order?: "asc" | "desc";
}

export function useAdapters(search: AdapterSearch) {
  return usePages<AdapterRow>(["adapters", "list", search], (after) =>
    answer(api.GET("/api/v1/adapters", { params: { query: { ...search, limit: PAGE, after } } })),
  );
}

const PAGE = 50;

/** Use, speed and residency of the adapters on the page, and of no others; a page of rows is a page of ids. */
export function useAdapterStats(ids: readonly string[]): Stats {
  const pages = Array.from({ length: Math.ceil(ids.length / PAGE) }, (_, i) =>
    ids.slice(i * PAGE, (i + 1) * PAGE),
  );
  return useQueries({
    queries: pages.map((asked) => ({
      queryKey: ["adapter-stats", asked],
      queryFn: () => statsOf(asked),
      placeholderData: keepPreviousData,
      refetchInterval: 15_000,
    })),
    combine: together,
  });
}

/** engines: all there are, whether they hold any of these adapters or not. */
interface Stats {
  byAdapter: Map<string, AdapterStatsView>;
  engines: readonly EngineRef[];
}

function statsOf(ids: readonly string[]): Promise<AdapterStatsList> {
  return answer(
    api.GET("/api/v1/adapter-stats", {
      params: { query: { adapter: [...ids] } },
      querySerializer: { array: { style: "form", explode: true } },
    }),
  );
}

function together(pages: { data: AdapterStatsList | undefined }[]): Stats {
  const found = pages.flatMap((page) => page.data ?? []);
  const rows = found.flatMap((page) => page.data);
  return { byAdapter: new Map(rows.map((one) => [one.adapter, one])), engines: found[0]?.engines ?? [] };
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
    async retire(number: number, revoke: boolean): Promise<void> {
      await answer(
        api.DELETE("/api/v1/adapters/{name}/versions/{number}", {
          params: { path: { name, number }, query: { revoke } },
        }),
      );
      await refresh();
    },
    async remove(etag: string, revoke: boolean): Promise<void> {
      await answer(
        api.DELETE("/api/v1/adapters/{name}", {
          params: { path: { name }, query: { revoke }, header: { "If-Match": etag } },
        }),
      );
      await refresh();
    },
  };
}
