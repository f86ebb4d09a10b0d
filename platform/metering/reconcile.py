"""Proves the books: journal = events = hourly and daily rollups = spend = wallet, to the token and the nano.

Owns the comparison only; it repairs nothing. Anything but zero is a bug or a tampered row, and an alarm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.metering.journal import Entry
from tenantry.runtime.messages import BILLED


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """findings: one line per disagreement. unreconciled_*: the sum of absolute differences."""

    findings: tuple[str, ...]
    unreconciled_tokens: int
    unreconciled_nano: int
    events: int
    open_requests: int
    oldest_open_seconds: float

    @property
    def balanced(self) -> bool:
        return not self.findings


# Each names a tenant, a difference in tokens, a difference in nano, and what disagrees.
_BOOKS = """
WITH event AS (
  SELECT tenant_id, count(*) AS n, sum(prompt) AS prompt, sum(cached) AS cached, sum(completion) AS completion,
         sum(drafted) AS drafted, sum(accepted) AS accepted, sum(nano) AS nano FROM usage_event GROUP BY 1),
hour AS (
  SELECT tenant_id, sum(requests) AS n, sum(prompt) AS prompt, sum(cached) AS cached, sum(completion) AS completion,
         sum(drafted) AS drafted, sum(accepted) AS accepted, sum(nano) AS nano FROM usage_hour GROUP BY 1),
day AS (
  SELECT d.tenant_id, d.dimension, sum(d.requests) AS n, sum(d.prompt) AS prompt, sum(d.cached) AS cached,
         sum(d.completion) AS completion, sum(d.drafted) AS drafted, sum(d.accepted) AS accepted, sum(d.nano) AS nano
  FROM usage_day d JOIN usage_closed c ON c.tenant_id = d.tenant_id AND d.day < c.until GROUP BY 1, 2),
closed AS (
  SELECT u.tenant_id, sum(u.requests) AS n, sum(u.prompt) AS prompt, sum(u.cached) AS cached,
         sum(u.completion) AS completion, sum(u.drafted) AS drafted, sum(u.accepted) AS accepted, sum(u.nano) AS nano
  FROM usage_hour u JOIN usage_closed c ON c.tenant_id = u.tenant_id AND u.hour < c.until GROUP BY 1),
entry AS (
  SELECT tenant_id, count(*) AS n, max(seq) AS seq, sum(nano) AS nano,
         coalesce(sum(-nano) FILTER (WHERE kind = 'usage'), 0) AS usage FROM wallet_entry GROUP BY 1),
spent AS (
  SELECT tenant_id, coalesce(sum(nano) FILTER (WHERE scope_id = tenant_id), 0) AS tenant,
         coalesce(sum(nano) FILTER (WHERE scope_id <> tenant_id), 0) AS keys
  FROM spend WHERE period = '-infinity' GROUP BY 1),
one AS (
  SELECT t.id AS tenant_id, w.balance_nano, w.seq AS wallet_seq,
    coalesce(e.n, 0) AS events, coalesce(e.prompt, 0) AS prompt, coalesce(e.cached, 0) AS cached,
    coalesce(e.completion, 0) AS completion, coalesce(e.nano, 0) AS nano,
    coalesce(e.drafted, 0) AS drafted, coalesce(e.accepted, 0) AS accepted,
    coalesce(h.n, 0) AS hour_n, coalesce(h.prompt, 0) AS hour_prompt, coalesce(h.cached, 0) AS hour_cached,
    coalesce(h.completion, 0) AS hour_completion, coalesce(h.nano, 0) AS hour_nano,
    coalesce(h.drafted, 0) AS hour_drafted, coalesce(h.accepted, 0) AS hour_accepted,
    coalesce(n.n, 0) AS entries, coalesce(n.seq, 0) AS entry_seq, coalesce(n.nano, 0) AS entry_nano,
    coalesce(n.usage, 0) AS entry_usage, coalesce(s.tenant, 0) AS spent_tenant, coalesce(s.keys, 0) AS spent_keys
  FROM tenant t LEFT JOIN wallet w ON w.tenant_id = t.id LEFT JOIN event e ON e.tenant_id = t.id
  LEFT JOIN hour h ON h.tenant_id = t.id LEFT JOIN entry n ON n.tenant_id = t.id
  LEFT JOIN spent s ON s.tenant_id = t.id)
SELECT * FROM (
  SELECT tenant_id, 'events and hourly rollups' AS what,
         abs(prompt - hour_prompt) + abs(cached - hour_cached) + abs(completion - hour_completion)
           + abs(drafted - hour_drafted) + abs(accepted - hour_accepted) + abs(events - hour_n) AS tokens,
         abs(nano - hour_nano) AS nano FROM one
  UNION ALL SELECT c.tenant_id, 'hourly and daily rollups by ' || x.dimension,
         abs(c.prompt - coalesce(d.prompt, 0)) + abs(c.cached - coalesce(d.cached, 0))
           + abs(c.completion - coalesce(d.completion, 0)) + abs(c.drafted - coalesce(d.drafted, 0))
           + abs(c.accepted - coalesce(d.accepted, 0)) + abs(c.n - coalesce(d.n, 0)),
         abs(c.nano - coalesce(d.nano, 0))
    FROM closed c CROSS JOIN (VALUES ('adapter'), ('version'), ('key')) AS x (dimension)
    LEFT JOIN day d ON d.tenant_id = c.tenant_id AND d.dimension = x.dimension
  UNION ALL SELECT tenant_id, 'events and wallet entries', 0, abs(nano - entry_usage) FROM one
  UNION ALL SELECT tenant_id, 'wallet balance and its entries', 0,
    abs(coalesce(balance_nano, 0) - entry_nano) FROM one
  UNION ALL SELECT tenant_id, 'wallet sequence',
    abs(entries - entry_seq) + abs(coalesce(wallet_seq, 0) - entry_seq), 0 FROM one
  UNION ALL SELECT tenant_id, 'events and spend', 0, abs(nano - spent_tenant) + abs(nano - spent_keys) FROM one
  UNION ALL SELECT e.tenant_id, 'events and their price', 0,
         sum(abs(e.nano - (e.prompt - e.cached) * p.prompt_nano - e.cached * p.cached_nano
                 - e.completion * p.completion_nano - (e.drafted - e.accepted) * p.rejected_nano))
    FROM usage_event e JOIN price p ON p.id = e.price_id GROUP BY 1
  UNION ALL SELECT r.tenant_id, 'settled requests and events', count(*), 0 FROM request r
    LEFT JOIN usage_event e ON e.tenant_id = r.tenant_id AND e.request_id = r.id
    WHERE (r.state = 'settled') <> (e.request_id IS NOT NULL) GROUP BY 1
) x WHERE tokens <> 0 OR nano <> 0 ORDER BY 1, 2
"""
_JOURNALLED = """
SELECT x.id, r.state, e.prompt, e.cached, e.completion, e.drafted, e.accepted
FROM unnest($1::uuid[], $2::uuid[]) AS x (tenant_id, id)
LEFT JOIN request r ON r.tenant_id = x.tenant_id AND r.id = x.id
LEFT JOIN usage_event e ON e.tenant_id = x.tenant_id AND e.request_id = x.id
"""
_OPEN = """
SELECT (SELECT count(*) FROM usage_event) AS events, count(*) AS open,
       coalesce(extract(epoch FROM clock_timestamp() - min(admitted_at)), 0)::float8 AS oldest
FROM request WHERE state = 'admitted'
"""


async def reconcile(connection: Connection, journal: Mapping[UUID, Entry] | None = None) -> Reconciliation:
    """In an operator transaction whose first statement this is. `journal` must have been read before it began:
    then every final entry has its event, or a request that is still open."""
    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    findings: list[str] = []
    tokens = nano = 0
    for row in await connection.fetch(_BOOKS):
        findings.append(f"tenant {row['tenant_id']}: {row['what']} differ by {row['tokens']} and {row['nano']} nano")
        tokens += int(row["tokens"])
        nano += int(row["nano"])
    closed = {i: e for i, e in (journal or {}).items() if e.final}
    tenants = [e.receipt.tenant_id for e in closed.values()]
    for row in await connection.fetch(_JOURNALLED, tenants, list(closed)):
        if row["state"] == "admitted":
            continue
        usage = closed[row["id"]].usage
        off = sum(abs(getattr(usage, name) - (row[name] or 0)) for name in BILLED)
        if off or row["state"] is None:
            findings.append(f"request {row['id']}: journal and event differ by {off} tokens")
            tokens += off
    state = await connection.fetchrow(_OPEN)
    return Reconciliation(tuple(findings), tokens, nano, state["events"], state["open"], state["oldest"])
