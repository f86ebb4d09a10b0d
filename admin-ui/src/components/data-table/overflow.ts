import { type RefObject, useEffect, useState } from "react";

/** Whether there is more of a scrolling element to its right, so that its edge can say so. */
export function useMoreToTheRight(element: RefObject<HTMLElement | null>): boolean {
  const [more, setMore] = useState(false);
  useEffect(() => {
    const found = element.current;
    if (!found) return;
    const look = () => setMore(found.scrollLeft + found.clientWidth < found.scrollWidth - 1);
    const sizes = new ResizeObserver(look);
    sizes.observe(found);
    if (found.firstElementChild) sizes.observe(found.firstElementChild);
    found.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      sizes.disconnect();
      found.removeEventListener("scroll", look);
    };
  }, [element]);
  return more;
}
