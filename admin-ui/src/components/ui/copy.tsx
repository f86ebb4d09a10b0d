import { Check, Copy as CopyIcon } from "lucide-react";
import { useState } from "react";
import { Button } from "./button";

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  async function copy() {
    await navigator.clipboard.writeText(text);
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
