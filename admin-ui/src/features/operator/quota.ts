import type { HeadroomView, QuotaBody } from "@/lib/api/schema";

/** What stands in the form. Empty is unlimited. */
export interface Typed {
  concurrency: string;
  requestsPerMinute: string;
  budget: string;
  period: "total" | "month";
}

/** As the API takes it. What is no number is sent as typed, so that the API's own words say what is wrong. */
export function quotaOf(typed: Typed): QuotaBody {
  return {
    concurrency: number(typed.concurrency),
    requests_per_minute: number(typed.requestsPerMinute),
    budget: typed.budget.trim() || null,
    budget_period: typed.period,
  };
}

function number(text: string): number | null {
  const kept = text.trim();
  if (!kept) return null;
  return /^\d{1,9}$/.test(kept) ? Number(kept) : -1;
}

/** Which limit would refuse the very next request, if any: seen before it is set. */
export function refusals(typed: Typed, room: HeadroomView): "budget" | "concurrency" | null {
  const quota = quotaOf(typed);
  const spent =
    typed.period === "month" ? room.spent_this_month : room.budget_period === "month" ? null : room.spent;
  if (quota.budget && spent !== null && Number(spent) >= Number(quota.budget)) return "budget";
  const most = quota.concurrency;
  if (typeof most === "number" && most >= 0 && room.running >= most) return "concurrency";
  return null;
}
