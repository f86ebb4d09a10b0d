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

/** What a key must be allowed for a place to be of any use to it, by the server's own rule. */
type Need = "inference" | "manage" | "operator";

export interface Place {
  to: string;
  label: string;
  icon: LucideIcon;
  words: string;
  needs: Need;
}

/** The tenant console: everything here is about the signed-in tenant. */
const TENANT_PLACES: readonly Place[] = [
  { to: "/overview", label: "Overview", icon: LayoutDashboard, words: "home live tiles", needs: "manage" },
  {
    to: "/adapters",
    label: "Adapters",
    icon: Boxes,
    words: "models versions aliases upload",
    needs: "manage",
  },
  {
    to: "/playground",
    label: "Playground",
    icon: Play,
    words: "prompt try chat compare",
    needs: "inference",
  },
  {
    to: "/sessions",
    label: "Sessions",
    icon: MessagesSquare,
    words: "conversations turns cache",
    needs: "manage",
  },
  { to: "/usage", label: "Usage", icon: BarChart3, words: "cost tokens events csv", needs: "manage" },
  { to: "/limits", label: "Limits", icon: Gauge, words: "budget quota headroom wallet", needs: "manage" },
  { to: "/keys", label: "API keys", icon: KeyRound, words: "create revoke", needs: "manage" },
  { to: "/team", label: "Team", icon: Users, words: "people members invite roles sign in", needs: "manage" },
  { to: "/activity", label: "Activity", icon: Activity, words: "audit history who", needs: "manage" },
];

/** The operator console: the whole installation. */
const OPERATOR_PLACES: readonly Place[] = [
  {
    to: "/operator/engines",
    label: "Engines",
    icon: Cpu,
    words: "memory queue health speculation",
    needs: "operator",
  },
  {
    to: "/operator/tenants",
    label: "Tenants",
    icon: Building2,
    words: "suspend limits customers",
    needs: "operator",
  },
  { to: "/operator/prices", label: "Prices", icon: Tags, words: "cost per token", needs: "operator" },
];

export function may(scopes: readonly string[], need: Need): boolean {
  return scopes.includes(need) || (need === "manage" && scopes.includes("operator"));
}

interface Region {
  title: string | null;
  places: readonly Place[];
}

/** Where this key may go: the installation first for whom it is the work, and no door that is locked. */
export function regionsOf(scopes: readonly string[]): Region[] {
  const open = (places: readonly Place[]) => places.filter((place) => may(scopes, place.needs));
  const operator = open(OPERATOR_PLACES);
  if (operator.length === 0) return [{ title: null, places: open(TENANT_PLACES) }];
  return [
    { title: "Operator", places: operator },
    { title: "This tenant", places: open(TENANT_PLACES) },
  ];
}

/** The first page of whoever signed in. */
export function landing(scopes: readonly string[]): string {
  return regionsOf(scopes)[0]?.places[0]?.to ?? "/overview";
}

/** The place at this path if the key may not enter it. */
export function lockedPlace(scopes: readonly string[], pathname: string): Place | undefined {
  const at = [...TENANT_PLACES, ...OPERATOR_PLACES].find(
    ({ to }) => pathname === to || pathname.startsWith(`${to}/`),
  );
  return at && !may(scopes, at.needs) ? at : undefined;
}
