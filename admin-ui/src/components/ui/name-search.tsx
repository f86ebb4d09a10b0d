import { Search } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { Input } from "./input";

interface Props {
  /** What the URL asks for. */
  value: string | undefined;
  onSearch: (name: string | undefined) => void;
}

/** Part of a name, which the server looks for: it is asked when the typing pauses. */
export function NameSearch({ value, onSearch }: Props) {
  const name = value ?? "";
  const pause = useRef<ReturnType<typeof setTimeout>>(undefined);
  const [typed, setTyped] = useState(name);
  const [asked, setAsked] = useState(name);
  const [sent, setSent] = useState<string | null>(null);
  // By Back or the navigation the name changes without typing: then that is what stands in the field.
  if (asked !== name) {
    setAsked(name);
    if (name !== sent) {
      setSent(null);
      setTyped(name);
    }
  }

  function type(text: string) {
    setTyped(text);
    clearTimeout(pause.current);
    pause.current = setTimeout(() => {
      setSent(text);
      onSearch(text || undefined);
    }, 250);
  }
  useEffect(() => () => clearTimeout(pause.current), []);

  return (
    <div className="relative min-w-52 flex-1 sm:max-w-72">
      <Search aria-hidden className="pointer-events-none absolute top-2.5 left-2.5 size-4 text-ink-soft" />
      <Input
        type="search"
        aria-label="Part of a name"
        placeholder="Part of a name"
        maxLength={63}
        value={typed}
        onChange={(event) => type(event.target.value.toLowerCase())}
        className="pl-8"
      />
    </div>
  );
}
