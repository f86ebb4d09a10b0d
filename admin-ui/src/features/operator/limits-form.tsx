import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/button";
import { Field, Input } from "@/components/ui/input";
import { Select } from "@/components/ui/select";
import { useToast } from "@/components/ui/toast";
import { answer, api } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { HeadroomView, TenantView } from "@/lib/api/schema";
import { inCurrency, money } from "@/lib/format";
import { quotaOf, refusals, type Typed } from "./quota";

const PERIODS = [
  { value: "total", label: "in all" },
  { value: "month", label: "a month" },
] as const;

/** All limits at once, as the API takes them; what is empty becomes unlimited. */
export function LimitsForm({ tenant, room }: { tenant: TenantView; room: HeadroomView }) {
  const client = useQueryClient();
  const toast = useToast();
  const [typed, setTyped] = useState<Typed>({
    concurrency: room.concurrency?.toString() ?? "",
    requestsPerMinute: room.requests_per_minute?.toString() ?? "",
    budget: room.budget ?? "",
    period: room.budget_period === "month" ? "month" : "total",
  });
  const [error, setError] = useState<{ field: string | null; text: string } | null>(null);
  const set = (change: Partial<Typed>) => setTyped({ ...typed, ...change });
  const of = (field: string) => (error?.field === field ? error.text : null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      await answer(
        api.PUT("/api/v1/tenants/{tenant_id}/quota", {
          params: { path: { tenant_id: tenant.id } },
          body: quotaOf(typed),
        }),
      );
      await client.invalidateQueries({ queryKey: ["limits"] });
      toast(`The limits of ${tenant.name} are set.`);
    } catch (failure) {
      const field = failure instanceof ApiError ? failure.param : null;
      setError({ field, text: failure instanceof Error ? failure.message : "The limits were not set." });
    }
  }

  const warning = refusals(typed, room);
  return (
    <form onSubmit={submit} noValidate className="grid gap-4">
      <div className="grid gap-3 sm:grid-cols-2 lg:grid-cols-4">
        <Field label="At once" error={of("concurrency")}>
          {(field) => (
            <Input
              {...field}
              inputMode="numeric"
              placeholder="no limit"
              value={typed.concurrency}
              onChange={(e) => set({ concurrency: e.target.value })}
            />
          )}
        </Field>
        <Field label="A minute" error={of("requests_per_minute")}>
          {(field) => (
            <Input
              {...field}
              inputMode="numeric"
              placeholder="no limit"
              value={typed.requestsPerMinute}
              onChange={(e) => set({ requestsPerMinute: e.target.value })}
            />
          )}
        </Field>
        <Field label={inCurrency("Budget")} error={of("budget")}>
          {(field) => (
            <Input
              {...field}
              inputMode="decimal"
              placeholder="no limit"
              value={typed.budget}
              onChange={(e) => set({ budget: e.target.value })}
            />
          )}
        </Field>
        <Field label="Counted">
          {(field) => (
            <Select
              id={field.id}
              value={typed.period}
              onChange={(period) => set({ period })}
              choices={PERIODS}
              className="w-full"
            />
          )}
        </Field>
      </div>
      {error && !["concurrency", "requests_per_minute", "budget"].includes(error.field ?? "") && (
        <p role="alert" className="text-sm text-bad">
          {error.text}
        </p>
      )}
      {warning && (
        <p className="rounded-lg bg-warn-wash px-3 py-2 text-sm text-warn">
          {warning === "budget"
            ? `${money(room.spent)} is spent already: with this budget the next request is refused.`
            : `${room.running} are running now: with this limit the next request is refused.`}
        </p>
      )}
      <div className="flex justify-end">
        <Button type="submit">Set limits</Button>
      </div>
    </form>
  );
}
