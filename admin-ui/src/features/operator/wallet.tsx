import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { Button } from "@/components/ui/button";
import { Field, Input } from "@/components/ui/input";
import { Panel } from "@/components/ui/panel";
import { Segments } from "@/components/ui/segments";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { WALLET_COLUMNS } from "@/features/limits/wallet";
import { answer, api } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { TenantView } from "@/lib/api/schema";
import { inCurrency, money } from "@/lib/format";
import { balanceWith, type Entry, onceOnly, unready } from "./entry";

const KINDS = [
  { value: "grant", label: "Grant" },
  { value: "adjust", label: "Adjustment" },
] as const;
const BLANK: Entry = { kind: "grant", amount: "", note: "" };
const LATEST = 5;

/** The balance, a way to add to it, and what made it of late. */
export function TenantWallet({ tenant }: { tenant: TenantView }) {
  const query = useQuery({
    queryKey: ["limits", "wallet", tenant.id],
    queryFn: () =>
      answer(
        api.GET("/api/v1/tenants/{tenant_id}/wallet", {
          params: { path: { tenant_id: tenant.id }, query: { limit: LATEST } },
        }),
      ),
  });
  return (
    <Panel title="Wallet">
      <View query={query} rows={4}>
        {(wallet) => (
          <div className="grid gap-4">
            <p>
              <span className="block text-xs text-ink-soft">Balance: grants less usage</span>
              <output className="text-2xl font-semibold tracking-tight tabular-nums">
                {money(wallet.balance)}
              </output>
            </p>
            <EntryForm tenant={tenant} balance={wallet.balance} />
            <div className="-mx-4 -mb-4 border-t border-line">
              <DataTable
                caption="Latest wallet entries"
                columns={WALLET_COLUMNS}
                rows={wallet.data}
                rowKey={(entry) => String(entry.seq)}
                empty={<Empty title="No entries yet">Grants, adjustments and usage appear here.</Empty>}
              />
            </div>
          </div>
        )}
      </View>
    </Panel>
  );
}

function EntryForm({ tenant, balance }: { tenant: TenantView; balance: string }) {
  const client = useQueryClient();
  const toast = useToast();
  const [typed, setTyped] = useState(BLANK);
  // One entry is entered once, however often it is sent: when an answer was lost, say.
  const [once, setOnce] = useState(onceOnly);
  const [error, setError] = useState<{ field: string | null; text: string } | null>(null);
  const [busy, setBusy] = useState(false);
  const set = (change: Partial<Entry>) => {
    setTyped({ ...typed, ...change });
    setOnce(onceOnly());
    setError(null);
  };
  const of = (field: string) => (error?.field === field ? error.text : null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (busy) return;
    const missing = unready(typed);
    setError(missing);
    if (missing) return;
    setBusy(true);
    try {
      const entered = await answer(
        api.POST("/api/v1/tenants/{tenant_id}/wallet", {
          params: { path: { tenant_id: tenant.id } },
          headers: { "Idempotency-Key": once },
          body: { ...typed, amount: typed.amount.trim(), note: typed.note.trim() },
        }),
      );
      setTyped({ ...BLANK, kind: typed.kind });
      setOnce(onceOnly());
      toast(`The balance of ${tenant.name} is ${money(entered.balance ?? balance)} now.`);
      await client.invalidateQueries({ queryKey: ["limits"] });
    } catch (failure) {
      const field = failure instanceof ApiError ? failure.param : null;
      setError({ field, text: failure instanceof Error ? failure.message : "Nothing was entered." });
    } finally {
      setBusy(false);
    }
  }

  const after = balanceWith(balance, typed.amount);
  return (
    <form onSubmit={submit} noValidate className="grid gap-3">
      <div>
        <Segments label="Entry" value={typed.kind} onChange={(kind) => set({ kind })} choices={KINDS} />
      </div>
      <div className="grid gap-3 items-start sm:grid-cols-[10rem_1fr]">
        <Field
          label={inCurrency("Amount")}
          error={of("amount")}
          hint={
            after === null
              ? typed.kind === "adjust"
                ? "-5 takes 5 away"
                : undefined
              : `${money(after)} then`
          }
        >
          {(field) => (
            <Input
              {...field}
              inputMode={typed.kind === "grant" ? "decimal" : "text"}
              autoComplete="off"
              value={typed.amount}
              onChange={(e) => set({ amount: e.target.value })}
            />
          )}
        </Field>
        <Field label="Note" error={of("note")} hint="The tenant reads it beside the entry.">
          {(field) => (
            <Input
              {...field}
              maxLength={500}
              autoComplete="off"
              value={typed.note}
              onChange={(e) => set({ note: e.target.value })}
            />
          )}
        </Field>
      </div>
      {error && !["amount", "note"].includes(error.field ?? "") && (
        <p role="alert" className="text-sm text-bad">
          {error.text}
        </p>
      )}
      <div className="flex justify-end">
        <Button type="submit" disabled={busy}>
          {busy ? "Working…" : typed.kind === "grant" ? "Enter the grant" : "Enter the adjustment"}
        </Button>
      </div>
    </form>
  );
}
