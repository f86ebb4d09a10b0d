import { useEffect, useRef } from "react";

/** What stands over the page, the last on top: Escape closes that, and not a note at the corner that came after it. */
const stack: { close: () => void }[] = [];

export function useEscapable(open: boolean, onClose: () => void): void {
  const latest = useRef(onClose);
  useEffect(() => {
    latest.current = onClose;
  });
  useEffect(() => {
    if (!open) return;
    const one = { close: () => latest.current() };
    stack.push(one);
    return () => {
      stack.splice(stack.indexOf(one), 1);
    };
  }, [open]);
}

/** Whether something closed instead of the note that Escape was offered to. */
export function escapeBehind(): boolean {
  stack.at(-1)?.close();
  return stack.length > 0;
}
