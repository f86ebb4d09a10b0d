import { Check, Copy as CopyIcon } from "lucide-react";
import { useCallback, useState } from "react";
import { Button } from "./button";
import { useToast } from "./toast";

/** Puts text on the clipboard, or says that the browser would not let it. */
export function useCopy(): (text: string) => Promise<boolean> {
  const toast = useToast();
  return useCallback(
    async (text) => {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch {
        toast("The browser did not allow copying: select the text and copy it yourself.", "bad");
        return false;
      }
    },
    [toast],
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const put = useCopy();
  async function copy() {
    if (!(await put(text))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  }
  return (
    <Button look="outline" size="sm" onClick={copy} aria-live="polite">
      {done ? <Check aria-hidden /> : <CopyIcon aria-hidden />}
      {done ? "Copied" : label}
    </Button>
  );
}
