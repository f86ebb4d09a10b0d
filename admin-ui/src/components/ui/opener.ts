/** Where the keyboard was before a dialog, and goes back to after it. */

/** Of a dialog that follows another: what stood before the first, which is all that is left in the end. */
const openers = new WeakMap<Element, readonly HTMLElement[]>();

/** Asked when a dialog begins. Of a menu's item, which is gone by then, the button that opened it. */
export function whoOpened(): readonly HTMLElement[] {
  const active = document.activeElement;
  if (!(active instanceof HTMLElement) || active === document.body) return [];
  const menu = active.closest("[role=menu]");
  const button = menu && document.getElementById(menu.getAttribute("aria-labelledby") ?? "");
  const before = openers.get(active.closest("[role=dialog]") ?? active) ?? [];
  return [button ?? active, ...before];
}

/** To be told of a dialog's own element once it stands. */
export function opened(dialog: EventTarget | null, by: readonly HTMLElement[]): void {
  if (dialog instanceof Element) openers.set(dialog, by);
}

export function giveBack(to: readonly HTMLElement[]): void {
  (to.find((one) => one.isConnected) ?? document.getElementById("main"))?.focus();
}

/** The first thing to fill in, else the first thing to do. */
export function firstToDo(body: HTMLElement | null): HTMLElement | null {
  const field =
    "input:not([type=file]):not([disabled]), textarea:not([disabled]), [role=combobox]:not([disabled])";
  return (
    body?.querySelector<HTMLElement>(field) ?? body?.querySelector("button:not([disabled]), a[href]") ?? null
  );
}
