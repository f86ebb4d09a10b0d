import { Link } from "@tanstack/react-router";
import { CheckCircle2, FileUp, Loader2 } from "lucide-react";
import { type DragEvent, type FormEvent, useEffect, useRef, useState } from "react";
import { Button, buttonStyle } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { ApiError } from "@/lib/api/errors";
import type { VersionView } from "@/lib/api/schema";
import { cn } from "@/lib/cn";
import { bytes } from "@/lib/format";
import { useAdapter, useAdapterActs } from "./adapters";
import { problemsIn, Report } from "./report";
import { answersAs, nameProblem, pickFiles, upload } from "./upload";

interface Props {
  onClose: () => void;
  /** A new version of this adapter; else the person names one. */
  adapter?: string;
  /** Dropped on the page before the dialog was open. */
  dropped?: File[];
}

type Stage =
  | { at: "choosing"; error?: string }
  | { at: "sending"; share: number }
  | { at: "done"; version: VersionView }
  | { at: "rejected"; error: ApiError };

export function UploadDialog({ onClose, adapter, dropped = [] }: Props) {
  const [name, setName] = useState(adapter ?? "");
  const [files, setFiles] = useState<File[]>(dropped);
  const [over, setOver] = useState(false);
  const [stage, setStage] = useState<Stage>({ at: "choosing" });
  const chooser = useRef<HTMLInputElement>(null);
  const stop = useRef(new AbortController());
  const { refresh } = useAdapterActs(name);
  const [asking, setAsking] = useState(false);
  const sending = stage.at === "sending";
  useEffect(() => () => stop.current.abort(), []);

  // Escape and a click beside the dialog come by accident: what is under way is not thrown away for them.
  function close() {
    if (sending && !asking) setAsking(true);
    else onClose();
  }

  async function send(event: FormEvent) {
    event.preventDefault();
    const wrong = nameProblem(name);
    const picked = pickFiles(files);
    if (wrong || "why" in picked) {
      setStage({ at: "choosing", error: wrong ?? ("why" in picked ? picked.why : "") });
      return;
    }
    stop.current = new AbortController();
    setAsking(false);
    setStage({ at: "sending", share: 0 });
    try {
      const version = await upload(
        name,
        picked.files,
        (share) => setStage({ at: "sending", share }),
        stop.current.signal,
      );
      setStage({ at: "done", version });
    } catch (failure) {
      if (failure instanceof ApiError && failure.problems.length > 0)
        setStage({ at: "rejected", error: failure });
      else if (!(failure instanceof DOMException)) {
        setStage({
          at: "choosing",
          error: failure instanceof Error ? failure.message : "The upload failed.",
        });
      }
    }
    void refresh();
  }

  function drop(event: DragEvent) {
    event.preventDefault();
    setOver(false);
    setFiles([...event.dataTransfer.files]);
  }

  const title = adapter ? `New version of ${adapter}` : "Upload an adapter";
  if (stage.at === "done") return <Done version={stage.version} onClose={onClose} />;
  if (stage.at === "rejected") {
    return (
      <Dialog
        open
        onClose={onClose}
        title="The adapter was rejected"
        wide
        description="Nothing of it reached the engine. Every problem at once:"
      >
        <Report problems={stage.error.problems} />
        <DialogActions>
          <Button onClick={() => setStage({ at: "choosing" })}>Choose other files</Button>
          <Button look="solid" onClick={onClose}>
            Close
          </Button>
        </DialogActions>
      </Dialog>
    );
  }
  const error = stage.at === "choosing" ? stage.error : undefined;
  return (
    <Dialog
      open
      onClose={close}
      title={title}
      description="As PEFT saved it: adapter_config.json and adapter_model.safetensors, or one zip of them."
    >
      <form onSubmit={send} noValidate className="grid gap-4">
        {!adapter && (
          <Field label="Adapter" hint="A new name makes a new adapter; a known one gets another version.">
            {(field) => (
              <Input
                {...field}
                autoComplete="off"
                spellCheck={false}
                placeholder="support"
                value={name}
                onChange={(event) => setName(event.target.value.trim())}
              />
            )}
          </Field>
        )}
        <fieldset
          aria-label="Files"
          onDragOver={(event) => {
            event.preventDefault();
            setOver(true);
          }}
          onDragLeave={() => setOver(false)}
          onDrop={drop}
          className={cn(
            "grid place-items-center gap-2 rounded-lg border-2 border-dashed p-6 text-center text-sm",
            over ? "border-accent bg-accent-wash" : "border-line",
          )}
        >
          <FileUp aria-hidden className="size-6 text-ink-soft" />
          {files.length === 0 ? (
            <span>Drop the files here, or</span>
          ) : (
            <ul className="grid gap-0.5">
              {files.map((file) => (
                <li key={file.name} className="[overflow-wrap:anywhere]">
                  {file.name} <span className="text-ink-soft">{bytes(file.size)}</span>
                </li>
              ))}
            </ul>
          )}
          <Button size="sm" onClick={() => chooser.current?.click()}>
            {files.length ? "Choose others" : "Choose files"}
          </Button>
          <input
            ref={chooser}
            type="file"
            multiple
            aria-label="Adapter files"
            tabIndex={-1}
            className="sr-only"
            onChange={(event) => setFiles([...(event.target.files ?? [])])}
          />
        </fieldset>
        {error && (
          <p role="alert" className="text-sm text-bad">
            {error}
          </p>
        )}
        {stage.at === "sending" && <Sending share={stage.share} />}
        {sending && asking && (
          <p role="alert" className="text-sm font-medium">
            The upload is still under way. Stop it, or leave this open until it is done.
          </p>
        )}
        <DialogActions>
          <Button onClick={onClose}>{sending ? "Stop the upload" : "Cancel"}</Button>
          <Button type="submit" look="solid" disabled={sending}>
            Upload
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

function Sending({ share }: { share: number }) {
  const whole = Math.round(share * 100);
  return (
    <div role="status" className="grid gap-1.5 text-sm">
      <span className="flex items-center gap-2">
        <Loader2 aria-hidden className="size-4 animate-spin" />
        {share < 1 ? `Sending, ${whole}%` : "Sent. The validator is reading it…"}
      </span>
      <progress max={100} value={whole} aria-label="Upload" className="h-1.5 w-full accent-accent" />
    </div>
  );
}

function Done({ version, onClose }: { version: VersionView; onClose: () => void }) {
  const adapter = useAdapter(version.adapter);
  return (
    <Dialog open onClose={onClose} title={`${version.model} is ready`} wide>
      <div className="grid gap-3 text-sm">
        <p className="flex items-center gap-2">
          <CheckCircle2 aria-hidden className="size-4 text-good" /> Rank {version.rank},{" "}
          {bytes(version.bytes)}, {version.targets?.length ?? 0} target modules.
        </p>
        <Report problems={[]} warnings={problemsIn(version.report, "warnings")} />
        <p className="text-ink-soft">{adapter.data && answersAs(version, adapter.data.aliases ?? [])}</p>
      </div>
      <DialogActions>
        <Button onClick={onClose}>Close</Button>
        <Link
          to="/adapters/$name"
          params={{ name: version.adapter }}
          onClick={onClose}
          className={buttonStyle({ look: "solid" })}
        >
          To the adapter
        </Link>
      </DialogActions>
    </Dialog>
  );
}
