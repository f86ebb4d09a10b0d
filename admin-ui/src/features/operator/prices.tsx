import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ColumnDef } from "@tanstack/react-table";
import { Plus } from "lucide-react";
import { type FormEvent, useState } from "react";
import { DataTable } from "@/components/data-table/data-table";
import { More } from "@/components/data-table/more";
import { usePages } from "@/components/data-table/paging";
import { PageHeader } from "@/components/layout/page";
import { Button } from "@/components/ui/button";
import { Chip } from "@/components/ui/chip";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/input";
import { Panel } from "@/components/ui/panel";
import { Empty, View } from "@/components/ui/states";
import { useToast } from "@/components/ui/toast";
import { answer, api } from "@/lib/api/client";
import { ApiError } from "@/lib/api/errors";
import type { DatedPrice } from "@/lib/api/schema";
import { dateTime, inCurrency, price } from "@/lib/format";
import { markCurrent, perMillion, perToken } from "./price";

export function PricesPage() {
  const models = useQuery({
    queryKey: ["models", "base"],
    queryFn: async () => (await answer(api.GET("/v1/models", { params: { query: { limit: 1 } } }))).data,
  });
  return (
    <>
      <PageHeader
        title="Prices"
        description="Per million tokens. A price never changes: a new one takes its place, and every event keeps the one it was admitted under."
      />
      <View query={models} rows={4}>
        {(found) => {
          const base = found.find((one) => one.x_adapter === null || one.x_adapter === undefined);
          return base ? (
            <Prices base={base.x_base_model_id} name={base.id} />
          ) : (
            <Empty title="No base model is served" />
          );
        }}
      </View>
    </>
  );
}

const KINDS = [
  ["prompt", "Prompt"],
  ["cached", "Cached prompt"],
  ["completion", "Completion"],
  ["rejected", "Rejected guess"],
] as const;

const COLUMNS: ColumnDef<DatedPrice & { mark: "now" | "to come" | null }, unknown>[] = [
  {
    header: "From",
    cell: ({ row }) => (
      <span className="flex flex-wrap items-center gap-2 whitespace-nowrap">
        {dateTime(row.original.effective_from)}
        {row.original.mark && (
          <Chip tone={row.original.mark === "now" ? "good" : "warn"}>{row.original.mark}</Chip>
        )}
      </span>
    ),
  },
  ...KINDS.map(
    ([kind, header]): ColumnDef<DatedPrice & { mark: "now" | "to come" | null }, unknown> => ({
      header,
      meta: { numeric: true },
      cell: ({ row }) => price(perMillion(row.original[kind])),
    }),
  ),
];

function Prices({ base, name }: { base: string; name: string }) {
  const [adding, setAdding] = useState(false);
  const query = usePages<DatedPrice>(["prices", base], (after) =>
    answer(api.GET("/api/v1/prices", { params: { query: { base_model: base, limit: 50, after } } })),
  );
  return (
    <>
      <Panel
        title={name}
        flush
        aside={
          <Button size="sm" onClick={() => setAdding(true)}>
            <Plus aria-hidden /> New price
          </Button>
        }
      >
        <View query={query}>
          {(prices) => (
            <DataTable
              caption={`Prices of ${name}`}
              columns={COLUMNS}
              rows={markCurrent(prices)}
              rowKey={(dated) => dated.id}
              empty={<Empty title="No price yet">Nothing can be admitted before there is one.</Empty>}
              footer={<More query={query} shown={prices.length} />}
            />
          )}
        </View>
      </Panel>
      {adding && <NewPrice base={base} latest={query.data?.[0]} onClose={() => setAdding(false)} />}
    </>
  );
}

function NewPrice({
  base,
  latest,
  onClose,
}: {
  base: string;
  latest: DatedPrice | undefined;
  onClose: () => void;
}) {
  const client = useQueryClient();
  const toast = useToast();
  const [typed, setTyped] = useState<Record<string, string>>(() =>
    Object.fromEntries(KINDS.map(([kind]) => [kind, latest ? perMillion(latest[kind]) : ""])),
  );
  const [from, setFrom] = useState("");
  const [error, setError] = useState<{ field: string | null; text: string } | null>(null);

  async function submit(event: FormEvent) {
    event.preventDefault();
    try {
      const [prompt, cached, completion, rejected] = KINDS.map(([kind]) => perToken(typed[kind] ?? ""));
      await answer(
        api.POST("/api/v1/prices", {
          params: { query: { base_model: base } },
          body: {
            prompt: prompt ?? "",
            cached: cached ?? "",
            completion: completion ?? "",
            rejected: rejected ?? "",
            effective_from: from ? new Date(from).toISOString() : null,
          },
        }),
      );
      await client.invalidateQueries({ queryKey: ["prices"] });
      toast("The price is set.");
      onClose();
    } catch (failure) {
      const field = failure instanceof ApiError ? (failure.param?.replace(/_nano$/, "") ?? null) : null;
      setError({ field, text: failure instanceof Error ? failure.message : "The price was not set." });
    }
  }

  const known = KINDS.some(([kind]) => kind === error?.field);
  return (
    <Dialog
      open
      onClose={onClose}
      title="New price"
      description="Requests admitted from then on are charged by it; no others are."
    >
      <form onSubmit={submit} noValidate className="grid gap-4">
        <div className="grid grid-cols-2 gap-3">
          {KINDS.map(([kind, label]) => (
            <Field
              key={kind}
              label={inCurrency(`${label}, per million`)}
              error={error?.field === kind ? error.text : null}
            >
              {(field) => (
                <Input
                  {...field}
                  inputMode="decimal"
                  value={typed[kind]}
                  onChange={(e) => setTyped({ ...typed, [kind]: e.target.value })}
                />
              )}
            </Field>
          ))}
        </div>
        <Field label="From" hint="Empty: from now on." error={known ? null : error?.text}>
          {(field) => (
            <Input {...field} type="datetime-local" value={from} onChange={(e) => setFrom(e.target.value)} />
          )}
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" look="solid">
            Set price
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
