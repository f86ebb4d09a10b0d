import type { PaceView } from "@/lib/api/schema";

/**
 * One stream of events for all of a browser's tabs: HTTP/1.1 gives a host six connections, and a stream keeps one.
 * The tab that holds the lock reads and passes on; a tab that nobody sees neither holds it nor listens. Where locks are
 * not to be had (plain HTTP off localhost), every tab that is seen reads for itself.
 */

const NAME = "tenantry-live";
/** A stream that the gateway refused is asked for again after that long; polling fills the gap. */
export const AGAIN_MS = 60_000;
/** Of a stream that tells something every two seconds. */
export const SILENT_MS = 6_000;

export interface Listener {
  pace: (pace: PaceView) => void;
  /** Nothing comes: whoever wants to know must ask. */
  silent: () => void;
}

/** whose: feeds of different keys do not mix. Returns how to stop. */
export function listen(whose: string, listener: Listener): () => void {
  let stop: (() => void) | null = null;
  const look = () => {
    if (document.hidden) {
      stop?.();
      stop = null;
    } else stop ??= open(`${NAME} ${whose}`, listener);
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    document.removeEventListener("visibilitychange", look);
    stop?.();
  };
}

function open(name: string, listener: Listener): () => void {
  const ended = new AbortController();
  const channel = new BroadcastChannel(name);
  let quiet = setTimeout(listener.silent, SILENT_MS);
  const hear = (pace: PaceView) => {
    clearTimeout(quiet);
    quiet = setTimeout(listener.silent, SILENT_MS);
    listener.pace(pace);
  };
  channel.onmessage = (event: MessageEvent<PaceView>) => hear(event.data);
  const lead = () =>
    read(ended.signal, listener.silent, (pace) => {
      hear(pace);
      channel.postMessage(pace);
    });
  if (navigator.locks) {
    navigator.locks.request(name, { signal: ended.signal }, lead).catch((failure: unknown) => {
      if (!ended.signal.aborted) throw failure;
    });
  } else void lead();
  return () => {
    ended.abort();
    clearTimeout(quiet);
    channel.close();
  };
}

/** Reads until `ended`: as long as the lock is held. */
function read(ended: AbortSignal, silent: () => void, tell: (pace: PaceView) => void): Promise<void> {
  return new Promise((done) => {
    let source: EventSource;
    let again: ReturnType<typeof setTimeout> | undefined;
    const begin = () => {
      source = new EventSource("/api/v1/events");
      source.onmessage = (event: MessageEvent<string>) => tell(JSON.parse(event.data) as PaceView);
      source.onerror = () => {
        // A lost connection is taken up again by the browser itself; a refusal is not.
        if (source.readyState !== EventSource.CLOSED) return;
        silent();
        again = setTimeout(begin, AGAIN_MS);
      };
    };
    begin();
    ended.addEventListener("abort", () => {
      clearTimeout(again);
      source.close();
      done();
    });
  });
}
