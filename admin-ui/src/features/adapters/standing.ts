import type { EngineRef, ResidentView } from "@/lib/api/schema";

/** How a version stands on one engine. "disk": it holds nothing of it. "unknown": the engine does not answer. */
export interface Place {
  engine: string;
  role: string;
  state: string;
}

export interface Standing {
  state: string;
  text: string;
  /** By engine; nothing to open where there is only one. */
  places: Place[];
}

const WORDS: Record<string, string> = {
  resident: "on device",
  loading: "loading",
  draining: "leaving",
  failed: "failed to load",
  absent: "waits for room",
  disk: "on disk",
  unknown: "not known",
};

const ROLES: Record<string, string> = {
  both: "prefill and decode",
  prefill: "prefill",
  decode: "decode",
};

export function word(state: string): string {
  return WORDS[state] ?? state;
}

export function roleText(role: string): string {
  return ROLES[role] ?? role;
}

/** One version on all engines, in a few words. What no engine holds is on disk: every ready version is. */
export function standing(engines: readonly EngineRef[], held: ResidentView | undefined): Standing {
  const at = new Map(held?.engines.map((one) => [one.engine, one.state]));
  const places = engines.map(({ name, role, state }) => ({
    engine: name,
    role: roleText(role),
    state: state === "away" ? "unknown" : (at.get(name) ?? "disk"),
  }));
  const known = places.filter((place) => place.state !== "unknown");
  if (places.length > 0 && known.length === 0) return { state: "unknown", text: word("unknown"), places };
  const state = held && known.some((place) => place.state === held.state) ? held.state : "disk";
  if (state === "disk" || places.length < 2) return { state, text: word(state), places };
  const there = known.filter((place) => place.state === state).length;
  const where = state === "resident" ? "on" : `${word(state)} on`;
  return { state, text: `${where} ${there} of ${places.length} engines`, places };
}
