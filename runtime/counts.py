"""What an engine counts: the snapshot for health, metrics and the console, and the structs it is made of.

Owns wire structs of numbers alone, which messages.py carries. Nothing is decided or billed by them: what a request
is charged for is messages.Usage.
"""

import msgspec


class HandOffCounts(msgspec.Struct, frozen=True, array_like=True):
    """sent: prompts that this engine computed for others. taken: that it had from others. The other prompts it
    expected it computed itself: they came late or not at all (late), were not what they should be (refused: another
    request's, another format; damaged: bytes), or found no room for their pages (no_room). unsent: computed for
    others, with no place to put them. bytes: sent and taken."""

    sent: int = 0
    taken: int = 0
    late: int = 0
    refused: int = 0
    damaged: int = 0
    no_room: int = 0
    unsent: int = 0
    bytes: int = 0


class AdapterState(msgspec.Struct, frozen=True):
    """Residency of one adapter. state: absent, loading, resident, draining or failed."""

    digest: bytes
    state: str
    bytes: int
    users: int


class ProposerCounts(msgspec.Struct, frozen=True, array_like=True):
    """adapted: for rows with an adapter. drafts: rows that were judged with guesses of this proposer. drafted,
    accepted: their nodes, and those that stood, be it beyond the end of a choice. tried, stood: by depth, from 0:
    guesses whose ancestors all stood, and those of them that did."""

    proposer: str
    adapted: bool
    drafts: int
    drafted: int
    accepted: int
    tried: tuple[int, ...]
    stood: tuple[int, ...]


class StepTimes(msgspec.Struct, frozen=True):
    """What a step takes, as it is fitted while serving. measured: steps that it was fitted to. error: of what was
    expected of a step before it was measured, relative to what it took, lately and on average. expected, took: the
    seconds that were expected of those steps and that they took, on average. Then the seconds of a step by itself,
    and for each row that draws, its first guess and each guess judged, prompt token, 1,000 positions in the rows'
    pages, and 1,000 positions looked at by prompt tokens, one after the other."""

    measured: int = 0
    error: float = 0.0
    expected: float = 0.0
    took: float = 0.0
    step: float = 0.0
    row: float = 0.0
    first_guess: float = 0.0
    guess: float = 0.0
    prompt_token: float = 0.0
    kilo_attended: float = 0.0
    kilo_prompt_attended: float = 0.0


class TierCounts(msgspec.Struct, frozen=True, array_like=True):
    """One tier of KV below the device: host or disk. hits: pages that came back from it. evictions: pages it let go
    for want of room, shed: for want of host memory. bad: pages whose file was not what it ought to be; failures:
    transfers that the disk refused."""

    tier: str
    pages: int
    pages_total: int
    bytes: int
    hits: int
    evictions: int
    bad: int = 0
    failures: int = 0
    shed: int = 0


class TenantShare(msgspec.Struct, frozen=True, array_like=True):
    """One tenant's part of an engine. waiting: its requests that have not started, and its sequences that were put
    back or have not begun. running: its sequences that hold pages. work: virtual tokens charged to it since the
    engine started. ahead: how far its counter, which is work over weight, stands above the level at which the last
    turn ended; the lowest of those who wait is next."""

    tenant: str
    weight: float
    waiting: int
    running: int
    work: float
    ahead: float


class Stats(msgspec.Struct, frozen=True):
    """A snapshot for health, metrics and the console. Counters are totals since the engine started.

    live: held by requests. cached, idle: kept in case it is wanted again. pages_total: pages that no adapter holds.
    refused_early: requests whose deadline could not have been met. yielded: sequences put back for a tenant that had
    less of the places than its share. step_seconds: spent in all steps together. tenants: the few with most
    to do, by share_key up to its first "/". memory_stage: how far the engine has stepped back for want of host memory
    (runtime.pressure.Stage); refused_memory: requests that it refused for that; memory_used: share of it that
    was used at the last reading, memory_limit: from which on it steps back, 0: never. cached_host, cached_disk: of
    cached_tokens, those whose KV came back from host memory, and from disk.
    """

    steps: int = 0
    running: int = 0
    waiting: int = 0
    pages_total: int = 0
    pages_free: int = 0
    pages_cached: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    step_seconds: float = 0.0
    adapter_bytes: int = 0
    adapter_bytes_limit: int = 0
    kv_live_bytes: int = 0
    kv_cached_bytes: int = 0
    adapter_live_bytes: int = 0
    adapter_idle_bytes: int = 0
    free_bytes: int = 0
    adapters: tuple[AdapterState, ...] = ()
    proposers: tuple[ProposerCounts, ...] = ()
    tenants_waiting: int = 0
    refused_early: int = 0
    yielded: int = 0
    step_times: StepTimes = StepTimes()
    tiers: tuple[TierCounts, ...] = ()
    hand_offs: HandOffCounts = HandOffCounts()
    tenants: tuple[TenantShare, ...] = ()
    pages_evicted: int = 0
    adapters_evicted: int = 0
    memory_stage: int = 0
    refused_memory: int = 0
    memory_used: float = 0.0
    memory_limit: float = 0.0
    cached_host: int = 0
    cached_disk: int = 0


class Guessing(msgspec.Struct, frozen=True, array_like=True):
    """Since the engine started, of the requests of one namespace that took guesses. steps: that its sequences drew
    in, after their prompts; tokens: drawn in them. Without guesses there had been as many steps as tokens."""

    namespace: bytes
    adapter: bytes | None
    steps: int
    tokens: int
    proposers: tuple[ProposerCounts, ...]
