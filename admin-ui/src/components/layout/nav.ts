import {
  Activity,
  BarChart3,
  Boxes,
  Building2,
  Cpu,
  Gauge,
  KeyRound,
  LayoutDashboard,
  type LucideIcon,
  MessagesSquare,
  Play,
  Tags,
  Users,
} from "lucide-react";

export interface Place {
  to: string;
  label: string;
  icon: LucideIcon;
  words: string;
}

/** The tenant console: everything here is about the signed-in tenant. */
export const TENANT_PLACES: readonly Place[] = [
  { to: "/overview", label: "Overview", icon: LayoutDashboard, words: "home live tiles" },
  { to: "/adapters", label: "Adapters", icon: Boxes, words: "models versions aliases upload" },
  { to: "/playground", label: "Playground", icon: Play, words: "prompt try chat compare" },
  { to: "/sessions", label: "Sessions", icon: MessagesSquare, words: "conversations turns cache" },
  { to: "/usage", label: "Usage", icon: BarChart3, words: "cost tokens events csv" },
  { to: "/limits", label: "Limits", icon: Gauge, words: "budget quota headroom wallet" },
  { to: "/keys", label: "API keys", icon: KeyRound, words: "create revoke" },
  { to: "/team", label: "Team", icon: Users, words: "people members invite roles sign in" },
  { to: "/activity", label: "Activity", icon: Activity, words: "audit history who" },
];

/** The operator console: the whole installation. */
export const OPERATOR_PLACES: readonly Place[] = [
  { to: "/operator/engines", label: "Engines", icon: Cpu, words: "memory queue health speculation" },
  { to: "/operator/tenants", label: "Tenants", icon: Building2, words: "suspend limits customers" },
  { to: "/operator/prices", label: "Prices", icon: Tags, words: "cost per token" },
];
