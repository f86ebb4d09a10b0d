"""Prometheus metrics: one registry per process, made here, with bounded labels.

Owns the registry and the platform's own metrics. Labels never carry tenant names, keys or free text.
"""

from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Every metric of the platform. Made once per process; tests make their own."""

    registry: CollectorRegistry
    admit_seconds: Histogram
    settle_seconds: Histogram
    first_token_seconds: Histogram
    request_seconds: Histogram
    overhead_seconds: Histogram
    requests: Counter
    rejections: Counter
    settled: Counter
    recovered: Counter
    open_requests: Gauge
    unsettled: Gauge
    unreconciled_tokens: Gauge
    oldest_open_seconds: Gauge
    fenced: Gauge

    @classmethod
    def create(cls) -> "Telemetry":
        r = CollectorRegistry()

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"tenantry_{name}", text, buckets=SECONDS, registry=r)

        return cls(
            registry=r,
            admit_seconds=histogram("admit_seconds", "Time of the admission transaction."),
            settle_seconds=histogram("settle_seconds", "Time of one settlement batch."),
            first_token_seconds=histogram("first_token_seconds", "From admission to the first token."),
            request_seconds=histogram("request_seconds", "From request to its last byte."),
            overhead_seconds=histogram("overhead_seconds", "Gateway time that was not the engine's."),
            requests=Counter("tenantry_requests", "Requests by route and status.", ["route", "status"], registry=r),
            rejections=Counter("tenantry_rejections", "Refusals by error code.", ["code"], registry=r),
            settled=Counter("tenantry_metering_settled", "Requests settled by outcome.", ["outcome"], registry=r),
            recovered=Counter("tenantry_metering_recovered", "Requests settled from the journal.", registry=r),
            open_requests=Gauge("tenantry_open_requests", "Requests running in this gateway.", registry=r),
            unsettled=Gauge("tenantry_metering_unsettled", "Finished requests waiting for settlement.", registry=r),
            unreconciled_tokens=Gauge("tenantry_metering_unreconciled_tokens", "Must read 0.", registry=r),
            oldest_open_seconds=Gauge("tenantry_metering_oldest_open_seconds", "Age of the oldest hold.", registry=r),
            fenced=Gauge(
                "tenantry_gateway_fenced", "1 while the heartbeat fails and nothing is admitted.", registry=r
            ),
        )

    def render(self) -> tuple[bytes, str]:
        """The exposition's bytes and their content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
