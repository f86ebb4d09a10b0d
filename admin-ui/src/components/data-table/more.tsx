import { Button } from "@/components/ui/button";

interface Props {
  query: { hasNextPage: boolean; isFetchingNextPage: boolean; fetchNextPage: () => unknown };
  shown: number;
}

export function More({ query, shown }: Props) {
  if (!query.hasNextPage) return null;
  return (
    <div className="flex items-center justify-between gap-4 border-t border-line px-4 py-2.5">
      <span className="text-sm text-ink-soft" role="status">
        {shown} shown, there are more
      </span>
      <Button size="sm" onClick={() => query.fetchNextPage()} disabled={query.isFetchingNextPage}>
        {query.isFetchingNextPage ? "Loading…" : "Show more"}
      </Button>
    </div>
  );
}
