"""The engine's own counters, as Prometheus reads them: taken from the last pong, never asked for.

Owns the translation alone. Labels carry no digests and no tenants.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenantry.platform.gateway.chat import Engine
from tenantry.runtime.counts import HandOffCounts, ProposerCounts, StepTimes, TierCounts

_GAUGES = {
    "running": "Sequences in the running batch.",
    "waiting": "Requests that wait for pages, adapters or their turn.",
    "pages_total": "KV pages in the pool.",
    "pages_free": "KV pages nobody uses.",
    "pages_cached": "KV pages kept for their prefix alone.",
    "adapter_bytes": "Bytes of resident adapters.",
    "adapter_bytes_limit": "Bytes that adapters may occupy.",
    "kv_live_bytes": "Bytes of KV pages that requests use.",
    "kv_cached_bytes": "Bytes of KV pages kept for their prefix alone.",
    "adapter_live_bytes": "Bytes of adapters that requests use.",
    "adapter_idle_bytes": "Bytes of adapters kept in case they are wanted again.",
    "free_bytes": "Bytes that nothing uses.",
    "tenants_waiting": "Tenants that have requests waiting.",
    "memory_used": "Share of the host memory that was used at the last reading.",
    "memory_stage": "For want of host memory, engines keep no KV there (1), refuse who waits (2), and who comes (3).",
}
_COUNTERS = {
    "steps": "Forward passes.",
    "step_seconds": "Seconds spent in them.",
    "prompt_tokens": "Prompt tokens accepted.",
    "cached_tokens": "Prompt tokens whose KV was found.",
    "cached_host": "Those of them whose KV came back from host memory.",
    "cached_disk": "Those of them whose KV came back from disk.",
    "drafted_tokens": "Tokens guessed and computed.",
    "accepted_tokens": "Guessed tokens that stood.",
    "completion_tokens": "Tokens generated.",
    "preemptions": "Sequences put back for want of pages.",
    "yielded": "Sequences put back for a tenant with less than its share.",
    "pages_evicted": "KV pages let go for want of room.",
    "adapters_evicted": "Adapters let go, for want of room or because they were retired.",
    "refused_early": "Requests whose deadline the queue could not have met.",
    "refused_memory": "Requests refused for want of host memory.",
}
_TIER_GAUGES = {
    "pages": "KV pages that the tier holds.",
    "pages_total": "KV pages that it may hold.",
    "bytes": "Bytes of those it holds.",
}
_TIER_COUNTERS = {
    "hits": "KV pages that came back from it.",
    "evictions": "KV pages it let go for want of room.",
    "bad": "KV pages whose file was not what it ought to be.",
    "failures": "Transfers that the disk refused.",
    "shed": "KV pages it let go for want of host memory.",
}


class EngineMetrics(Collector):
    """Nothing but tenantry_engine_ready while the engine is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        ready = 1 if self._engine.ready else 0
        yield GaugeMetricFamily("tenantry_engine_ready", "1 while the engine takes requests.", ready)
        stats = self._engine.stats
        if stats is None:
            return
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"tenantry_engine_{name}", text, getattr(stats, name))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"tenantry_engine_{name}", text, getattr(stats, name))
        yield _hand_offs(stats.hand_offs)
        yield from _guesses(stats.proposers)
        yield from _step_times(stats.step_times)
        yield from _tiers(stats.tiers)


def _step_times(times: StepTimes) -> Iterator[Metric]:
    """The fitted step-time model, and how far off it lately was."""
    cost = GaugeMetricFamily("tenantry_engine_step_cost_seconds", "What a step takes, fitted.", labels=["of"])
    for of in ("step", "row", "first_guess", "guess", "prompt_token", "kilo_attended", "kilo_prompt_attended"):
        cost.add_metric([of], getattr(times, of))
    yield cost
    yield GaugeMetricFamily("tenantry_engine_step_cost_error", "Of what was expected, relative, lately.", times.error)
    mean = GaugeMetricFamily(
        "tenantry_engine_step_mean_seconds", "A step's length lately, on average.", labels=["of"]
    )
    mean.add_metric(["expected"], times.expected)
    mean.add_metric(["took"], times.took)
    yield mean
    yield CounterMetricFamily("tenantry_engine_step_cost_measured", "Steps it was fitted to.", times.measured)


def _hand_offs(counts: HandOffCounts) -> Metric:
    family = CounterMetricFamily(
        "tenantry_engine_hand_offs", "Prompts that one engine computed for another, by outcome.", labels=["outcome"]
    )
    for outcome in ("sent", "taken", "late", "refused", "damaged", "no_room", "unsent"):
        family.add_metric([outcome], getattr(counts, outcome))
    return family


def _guesses(proposers: Sequence[ProposerCounts]) -> Iterator[Metric]:
    """By proposer, and by whether an adapter answered: which one is told to who may know it, at /api/v1/speculation.

    A position's guesses are those whose ancestors all stood; position 0 is the first.
    """
    labels = ["proposer", "weights"]
    drafted = CounterMetricFamily("tenantry_engine_guesses", "Tokens guessed and computed.", labels=labels)
    stood = CounterMetricFamily("tenantry_engine_guesses_accepted", "Those that stood.", labels=labels)
    by_tried = CounterMetricFamily(
        "tenantry_engine_guesses_tried_at", "Guesses judged, by position.", labels=[*labels, "position"]
    )
    by_stood = CounterMetricFamily(
        "tenantry_engine_guesses_accepted_at", "Those that stood, by position.", labels=[*labels, "position"]
    )
    for counts in proposers:
        of = [counts.proposer, "adapter" if counts.adapted else "base"]
        drafted.add_metric(of, counts.drafted)
        stood.add_metric(of, counts.accepted)
        for position, (tried, accepted) in enumerate(zip(counts.tried, counts.stood, strict=True)):
            if tried:
                by_tried.add_metric([*of, str(position)], tried)
                by_stood.add_metric([*of, str(position)], accepted)
    yield from (drafted, stood, by_tried, by_stood)


def _tiers(tiers: Sequence[TierCounts]) -> Iterator[Metric]:
    """KV below the device, by tier. Nothing where there is none."""
    for name, text in _TIER_GAUGES.items():
        gauge = GaugeMetricFamily(f"tenantry_engine_tier_{name}", text, labels=["tier"])
        for counts in tiers:
            gauge.add_metric([counts.tier], getattr(counts, name))
        yield gauge
    for name, text in _TIER_COUNTERS.items():
        counter = CounterMetricFamily(f"tenantry_engine_tier_{name}", text, labels=["tier"])
        for counts in tiers:
            counter.add_metric([counts.tier], getattr(counts, name))
        yield counter
