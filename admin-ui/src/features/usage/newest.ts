/** A keyset list as it was loaded, the newest page first. */
export interface Loaded<P> {
  pages: P[];
  pageParams: unknown[];
}

interface Page {
  data: { request_id: string }[];
}

/**
 * The same list with what came since put in front. The pages behind the first stay as they are: a page begins after the
 * last row of the one before it, and that row is still there. Where the newest page does not reach what was loaded, rows
 * would be missing between them, so the list begins anew.
 */
export function renewed<P extends Page>(loaded: Loaded<P>, newest: P): Loaded<P> {
  const [first, ...others] = loaded.pages;
  if (!first) return loaded;
  const known = new Set(first.data.map((row) => row.request_id));
  const come = newest.data.filter((row) => !known.has(row.request_id));
  if (come.length === newest.data.length && come.length > 0)
    return { pages: [newest], pageParams: [undefined] };
  if (come.length === 0) return loaded;
  return { ...loaded, pages: [{ ...first, data: [...come, ...first.data] }, ...others] };
}
