import { CheckCircle2, OctagonAlert, X } from "lucide-react";
import { Toast as Radix } from "radix-ui";
import { createContext, type ReactNode, useCallback, useContext, useState } from "react";
import { Button } from "./button";
import { escapeBehind } from "./escape";

type Say = (text: string, kind?: "good" | "bad") => void;
interface Note {
  id: number;
  text: string;
  kind: "good" | "bad";
}

const Context = createContext<Say>(() => undefined);

/** `toast("Saved")`, or `toast("No answer", "bad")`. Read out politely; stays while hovered or focused. */
export function useToast(): Say {
  return useContext(Context);
}

export function Toasts({ children }: { children: ReactNode }) {
  const [notes, setNotes] = useState<Note[]>([]);
  const say = useCallback<Say>((text, kind = "good") => {
    setNotes((old) => [...old.slice(-2), { id: Date.now() + Math.floor(performance.now()), text, kind }]);
  }, []);
  return (
    <Context value={say}>
      <Radix.Provider duration={6000}>
        {children}
        {notes.map((note) => (
          <Radix.Root
            key={note.id}
            type={note.kind === "bad" ? "foreground" : "background"}
            onEscapeKeyDown={(event) => {
              const here = document.activeElement?.closest("[data-note]");
              if (!here && escapeBehind()) event.preventDefault();
            }}
            data-note
            onOpenChange={(open) => !open && setNotes((old) => old.filter((other) => other.id !== note.id))}
            className="flex items-center gap-3 rounded-lg border border-line bg-surface py-2 pr-2 pl-3 text-sm shadow-float"
          >
            {note.kind === "good" ? (
              <CheckCircle2 aria-hidden className="size-4 shrink-0 text-good" />
            ) : (
              <OctagonAlert aria-hidden className="size-4 shrink-0 text-bad" />
            )}
            <Radix.Description className="flex-1 [overflow-wrap:anywhere]">{note.text}</Radix.Description>
            <Radix.Close asChild>
              <Button look="quiet" size="icon" aria-label="Dismiss">
                <X aria-hidden />
              </Button>
            </Radix.Close>
          </Radix.Root>
        ))}
        <Radix.Viewport className="fixed right-4 bottom-4 z-60 flex w-96 max-w-[calc(100vw-2rem)] flex-col gap-2 outline-none" />
      </Radix.Provider>
    </Context>
  );
}
