import {
  ArrowRightLeft,
  Ban,
  Boxes,
  Building2,
  CirclePause,
  CirclePlay,
  CircleX,
  Gauge,
  KeyRound,
  LogIn,
  type LucideIcon,
  Scale,
  ShieldOff,
  Tag,
  Trash2,
  Unlink,
  Upload,
  Wallet,
} from "lucide-react";
import type { ActView } from "@/lib/api/schema";

export type Kind = ActView["kind"];

/** Every kind of act there is, by what it is about. */
export const GROUPS: readonly (readonly [string, Partial<Record<Kind, readonly [string, LucideIcon]>>])[] = [
  [
    "Adapters",
    {
      adapter_created: ["Adapter created", Boxes],
      adapter_deleted: ["Adapter deleted", Trash2],
      version_uploaded: ["Version uploaded", Upload],
      version_rejected: ["Version rejected", CircleX],
      version_retired: ["Version retired", Unlink],
      version_revoked: ["Version revoked", Ban],
      alias_moved: ["Alias moved", ArrowRightLeft],
      alias_removed: ["Alias removed", Unlink],
    },
  ],
  [
    "Keys and people",
    {
      key_created: ["Key created", KeyRound],
      key_revoked: ["Key revoked", ShieldOff],
      signed_in: ["Signed in to the console", LogIn],
    },
  ],
  [
    "Tenant and money",
    {
      tenant_created: ["Tenant created", Building2],
      tenant_suspended: ["Tenant suspended", CirclePause],
      tenant_resumed: ["Tenant resumed", CirclePlay],
      tenant_deleted: ["Tenant deleted", Trash2],
      quota_changed: ["Limits changed", Gauge],
      wallet_granted: ["Wallet granted", Wallet],
      wallet_adjusted: ["Wallet corrected", Scale],
      price_set: ["Price set", Tag],
    },
  ],
];

export const LABELS = Object.assign({}, ...GROUPS.map(([, kinds]) => kinds)) as Record<
  Kind,
  readonly [string, LucideIcon]
>;

const KINDS = Object.keys(LABELS) as Kind[];

/** What the URL says about kinds. only: these alone. signIns: whether they are left out of all. */
export interface Kinds {
  only?: Kind[];
  signIns?: "hidden";
}

/** Of an unknown value from the URL: the kinds in it, each once, or undefined where there is none. */
export function kindsIn(value: unknown): Kind[] | undefined {
  const found = KINDS.filter((kind) => Array.isArray(value) && value.includes(kind));
  return found.length > 0 ? found : undefined;
}

/** What to ask for; undefined is everything. */
export function asked({ only, signIns }: Kinds): Kind[] | undefined {
  if (only?.length) return only;
  return signIns === "hidden" ? KINDS.filter((kind) => kind !== "signed_in") : undefined;
}

/** With one kind more, or less; none is the same as all. */
export function toggled(only: Kind[] | undefined, kind: Kind, on: boolean): Kind[] | undefined {
  return kindsIn(on ? [...(only ?? []), kind] : only?.filter((one) => one !== kind));
}

/** What the button says. */
export function told({ only, signIns }: Kinds): string {
  if (only?.length === 1 && only[0]) return LABELS[only[0]][0];
  if (only?.length) return `${only.length} kinds`;
  return signIns === "hidden" ? "All but sign-ins" : "All kinds";
}
