/** What a key may let others do, by the server's own rule: it refuses what these would not offer. */

const OPERATOR = "operator";

/** Nobody makes a key, invites or signs in anybody with more than they hold. */
export function mayGive(own: readonly string[], scopes: readonly string[]): boolean {
  return own.includes(OPERATOR) || scopes.every((scope) => own.includes(scope));
}

/** Ending gives nobody anything: refused only towards those who may do all of this and more. */
export function mayEnd(own: readonly string[], scopes: readonly string[]): boolean {
  if (own.includes(OPERATOR)) return true;
  return !(own.every((scope) => scopes.includes(scope)) && scopes.some((scope) => !own.includes(scope)));
}
