/**
 * One browser has one session, whatever its tabs show: a tab whose session is not the browser's any more must not go on
 * showing one tenant's name over another tenant's data. Owns how tabs learn of it. Knows nothing of pages.
 */

const NAME = "tenantry-session";
const NOT_AGAIN_MS = 1_000;

let channel: BroadcastChannel | undefined;

/** One for saying and hearing: what is said on it, it does not hear itself. */
function shared(): BroadcastChannel {
  channel ??= new BroadcastChannel(NAME);
  return channel;
}

/** Said after signing in or out here. */
export function tellOtherTabs(): void {
  shared().postMessage("changed");
}

/** `changed` hears other tabs' word; `look` is called whenever people come back to this one, for what no tab told. */
export function heedOtherTabs(changed: () => void, look: () => void): void {
  shared().addEventListener("message", changed);
  let last = 0;
  const back = () => {
    if (document.hidden || Date.now() - last < NOT_AGAIN_MS) return;
    last = Date.now();
    look();
  };
  addEventListener("focus", back);
  document.addEventListener("visibilitychange", back);
}
