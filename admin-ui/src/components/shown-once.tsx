import { Button } from "@/components/ui/button";
import { Copy } from "@/components/ui/copy";
import { Dialog, DialogActions } from "@/components/ui/dialog";

interface Secret {
  label: string;
  hint?: string;
  text: string;
}

interface Props {
  title: string;
  description: string;
  secrets: readonly Secret[];
  /** What the person says when it is safe: nothing closes by itself. */
  done: string;
  onClose: () => void;
}

/** Secrets that no later answer tells again: to be copied now, each with what it is good for. */
export function ShownOnce({ title, description, secrets, done, onClose }: Props) {
  return (
    <Dialog open onClose={onClose} title={title} description={description}>
      <div className="grid gap-4">
        {secrets.map((secret) => (
          <div key={secret.label} className="grid gap-1.5">
            <div className="flex items-center justify-between gap-3">
              <span className="text-sm font-medium">{secret.label}</span>
              <Copy text={secret.text} label={`Copy ${secret.label.toLowerCase()}`} />
            </div>
            <output className="block rounded-lg border border-line bg-raised p-3 font-mono text-xs break-all select-all">
              {secret.text}
            </output>
            {secret.hint && <p className="text-[0.85rem] text-ink-soft">{secret.hint}</p>}
          </div>
        ))}
      </div>
      <DialogActions>
        <Button look="solid" onClick={onClose}>
          {done}
        </Button>
      </DialogActions>
    </Dialog>
  );
}
