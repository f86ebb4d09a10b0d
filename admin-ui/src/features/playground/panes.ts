/**
 * Which panes stand beside each other. A pane is itself, whatever its place or model: an answer belongs to a pane's id,
 * so that removing one never shows its text as another's.
 */

export const MOST = 4;

export interface PaneOf {
  readonly id: number;
  readonly model: string;
}

/** The panes for what the URL says now. Those whose model is still wanted stay themselves, in the order asked for. */
export function panesOf(old: readonly PaneOf[], models: readonly string[]): readonly PaneOf[] {
  if (old.length === models.length && old.every((pane, i) => pane.model === models[i])) return old;
  const left = [...old];
  return models.map((model) => {
    const found = left.findIndex((pane) => pane.model === model);
    return left.splice(found, found < 0 ? 0 : 1)[0] ?? { id: newId(), model };
  });
}

export function beside(panes: readonly PaneOf[], model: string): PaneOf[] {
  return [...panes, { id: newId(), model }];
}

export function without(panes: readonly PaneOf[], id: number): PaneOf[] {
  return panes.filter((pane) => pane.id !== id);
}

/** Another model is another pane at the same place: the old one's answer goes with it. */
export function changed(panes: readonly PaneOf[], id: number, model: string): PaneOf[] {
  return panes.map((pane) => (pane.id === id ? { id: newId(), model } : pane));
}

let made = 0;

/** Never given twice, so that what a forgotten pane's run still tells reaches nobody. */
function newId(): number {
  made += 1;
  return made;
}
