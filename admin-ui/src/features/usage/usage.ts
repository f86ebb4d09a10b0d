import { useQuery, useQueryClient } from "@tanstack/react-query";
import { usePages } from "@/components/data-table/paging";
import { answer, api } from "@/lib/api/client";
import type { UsageEventPage, UsageEventView, UsageSeries } from "@/lib/api/schema";
import { type Loaded, renewed } from "./newest";
import { type Dates, type Range, type Span, spanOf } from "./ranges";
import type { Measure } from "./stack";

export type By = "adapter" | "version" | "key" | "total";

interface SeriesAsked extends Dates {
  by: By;
  measure: Measure;
  range: Range;
  key?: string;
  adapter?: string;
  groups?: number;
}

export interface Series extends UsageSeries {
  span: Span;
}

export function useSeries(asked: SeriesAsked) {
  return useQuery({
    queryKey: ["usage", "series", asked],
    queryFn: async (): Promise<Series> => {
      const span = spanOf(asked.range, asked);
      const query = {
        group_by: asked.by,
        measure: asked.measure,
        bucket: span.bucket,
        from: span.from,
        to: span.to,
        key: asked.key,
        adapter: asked.adapter,
        groups: asked.groups,
      };
      return { ...(await answer(api.GET("/api/v1/usage/series", { params: { query } }))), span };
    },
    placeholderData: (old) => old,
  });
}

export interface EventsAsked {
  from?: string;
  to?: string;
  key?: string;
  adapter?: string;
  version?: string;
  base?: string;
}

const PAGE = 50;

/** The requests asked for. When something new was settled only the newest are read again, whatever else is shown. */
export function useEvents(asked: EventsAsked) {
  const client = useQueryClient();
  const read = (after?: string): Promise<UsageEventPage> =>
    answer(api.GET("/api/v1/usage/events", { params: { query: { ...asked, limit: PAGE, after } } }));
  const pages = usePages<UsageEventView>(["events", asked], read);
  useQuery({
    queryKey: ["usage", "newest", asked],
    queryFn: async () => {
      const newest = await read();
      client.setQueryData<Loaded<UsageEventPage>>(["events", asked], (old) => old && renewed(old, newest));
      return newest.data.length;
    },
    enabled: pages.data !== undefined,
    initialData: 0, // the first page is there already: only what comes after it is asked for
    staleTime: Number.POSITIVE_INFINITY,
  });
  return pages;
}

const CSV_PAGES = 200;

/** Every event in the window, page after page; stops at twenty thousand and says so. */
export async function allEvents(asked: EventsAsked): Promise<{ events: UsageEventView[]; whole: boolean }> {
  const events: UsageEventView[] = [];
  let after: string | undefined;
  for (let page = 0; page < CSV_PAGES; page += 1) {
    const found = await answer(
      api.GET("/api/v1/usage/events", { params: { query: { ...asked, limit: 100, after } } }),
    );
    events.push(...found.data);
    if (!found.has_more || !found.next) return { events, whole: true };
    after = found.next;
  }
  return { events, whole: false };
}
