import { useState } from "react";
import { Confirm } from "@/components/confirm";
import { useToast } from "@/components/ui/toast";
import { ApiError } from "@/lib/api/errors";
import type { RegistrySchemasAdapterView, VersionView } from "@/lib/api/schema";
import { useAdapterActs, useImpact } from "./adapters";
import { Counted } from "./impact";

interface Props {
  adapter: RegistrySchemasAdapterView;
  /** Retire this one alone; without it the whole adapter goes. */
  version?: VersionView;
  onClose: () => void;
  onGone?: () => Promise<void>;
}

/** Retiring a version and deleting an adapter ask the same: what is hit, whether what runs shall end, and the name. */
export function RemoveDialog({ adapter, version, onClose, onGone }: Props) {
  const toast = useToast();
  const acts = useAdapterActs(adapter.name);
  const impact = useImpact({ adapter: adapter.name, version: version?.number });
  const [revoke, setRevoke] = useState(false);
  const name = version?.model ?? adapter.name;
  const pointed = version ? (impact.data?.aliases ?? []) : [];

  async function act() {
    try {
      await (version ? acts.retire(version.number, revoke) : acts.remove(adapter.etag, revoke));
    } catch (failure) {
      void acts.refresh();
      if (failure instanceof ApiError && failure.status === 412) {
        throw new Error(
          "Someone changed this adapter since you opened this. Nothing was deleted: look again.",
        );
      }
      throw failure;
    }
    toast(`${name} is ${version ? "retired" : "deleted"}${revoke ? ", what ran on it ends now" : ""}.`);
    await onGone?.();
  }

  return (
    <Confirm
      title={version ? `Retire ${name}` : `Delete ${name}`}
      name={name}
      act={`${version ? "Retire" : "Delete"} ${revoke ? "and end requests" : "for good"}`}
      blocked={
        pointed.length > 0 ? `${listed(pointed)} at this version: move ${them(pointed)} first.` : undefined
      }
      impact={
        <>
          <p>
            {version
              ? "The version answers no more, under any name."
              : "Every version is retired and every alias removed; the name answers no more."}{" "}
            Sessions that stay with it cannot go on.
          </p>
          <Counted impact={impact} />
        </>
      }
      onClose={onClose}
      onAct={act}
    >
      {pointed.length === 0 && (
        <label className="flex items-start gap-2.5 text-sm">
          <input
            type="checkbox"
            checked={revoke}
            onChange={(event) => setRevoke(event.target.checked)}
            className="mt-0.5 size-4 accent-accent"
          />
          <span>
            <span className="font-medium">End requests under way, too</span>
            <span className="block text-ink-soft">
              {revoke
                ? "They end within two seconds, and are charged for what was generated until then."
                : "Left alone, they finish on the weights they began with."}
            </span>
          </span>
        </label>
      )}
      <p className="text-sm text-ink-soft">
        What stays: its usage, its ledger entries and who moved what. What was charged stays charged.
      </p>
    </Confirm>
  );
}

function listed(aliases: readonly string[]): string {
  return aliases.length === 1 ? `The alias ${aliases[0]} points` : `The aliases ${aliases.join(", ")} point`;
}

function them(aliases: readonly string[]): string {
  return aliases.length === 1 ? "it" : "them";
}
