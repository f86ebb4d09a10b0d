import type { WalletEnter } from "@/lib/api/schema";

/** A wallet entry as it is typed. */
export type Entry = Required<Pick<WalletEnter, "kind" | "amount" | "note">>;

/** What is still missing, and at which field. What amounts there are is the API's to say. */
export function unready(typed: Entry): { field: "amount" | "note"; text: string } | null {
  if (!typed.amount.trim()) return { field: "amount", text: "Say how much." };
  if (typed.kind === "adjust" && !typed.note.trim())
    return { field: "note", text: "Say why: an adjustment corrects something." };
  return null;
}

/** What the balance will be, or null while no amount stands there. For reading only: the ledger adds in integers. */
export function balanceWith(balance: string, amount: string): string | null {
  const text = amount.trim();
  if (!/^-?\d{1,10}(\.\d{1,9})?$/.test(text)) return null;
  return (Number(balance) + Number(text)).toFixed(9);
}

/** An Idempotency-Key. crypto.randomUUID is there over https alone. */
export function onceOnly(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");
}
