import { useInfiniteQuery } from "@tanstack/react-query";

interface Page<T> {
  data: T[];
  has_more: boolean;
  next?: string | null;
}

/** A keyset list, page after page as people ask for them. Nothing is counted that was not read. */
export function usePages<T>(
  queryKey: readonly unknown[],
  fetchPage: (after: string | undefined) => Promise<Page<T>>,
  options: { enabled?: boolean; refetchInterval?: number } = {},
) {
  const query = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam }) => fetchPage(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => (last.has_more ? (last.next ?? undefined) : undefined),
    ...options,
  });
  const rows = query.data?.pages.flatMap((page) => page.data);
  return { ...query, data: rows };
}
