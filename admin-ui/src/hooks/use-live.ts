import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { useSession } from "@/features/session/session";
import { answer, api } from "@/lib/api/client";
import type { PaceView } from "@/lib/api/schema";
import { listen } from "./live-feed";

const POLL_MS = 4_000;
const REFRESH_MS = 3_000;

type LiveLink = "stream" | "polling";

/**
 * How fast it goes now: a stream that all tabs share, or polling where streams do not come through.
 * When something new was settled, whatever is on the page is read again, at most every three seconds.
 */
export function useLive(): { pace: PaceView | undefined; link: LiveLink } {
  const client = useQueryClient();
  const { me } = useSession();
  const [pace, setPace] = useState<PaceView>();
  const [link, setLink] = useState<LiveLink>("stream");

  useEffect(
    () =>
      listen(me.key, {
        pace: (next) => {
          setLink("stream");
          setPace(next);
        },
        silent: () => setLink("polling"),
      }),
    [me.key],
  );

  const polled = useQuery({
    queryKey: ["live"],
    queryFn: () => answer(api.GET("/api/v1/live")),
    enabled: link === "polling",
    refetchInterval: POLL_MS,
  });
  const shown = link === "polling" ? (polled.data ?? pace) : pace;

  const settled = shown?.settled;
  const [seen, setSeen] = useState<number>();
  useEffect(() => {
    if (settled === undefined || settled === seen) return;
    const timer = setTimeout(
      () => {
        setSeen(settled);
        if (seen !== undefined) {
          void client.invalidateQueries({
            predicate: (query) => LIVE_KEYS.has(String(query.queryKey[0])),
          });
        }
      },
      seen === undefined ? 0 : REFRESH_MS,
    );
    return () => clearTimeout(timer);
  }, [settled, seen, client]);

  return { pace: shown, link };
}

const LIVE_KEYS = new Set(["overview", "usage", "limits", "adapter-stats", "sessions"]);
