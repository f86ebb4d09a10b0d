"""What guessing came to is told to those whose text it was, and by proposer to whoever reads the metrics."""

from uuid import UUID

import httpx
import pytest

from tenantry.platform.core import ids
from tenantry.platform.testing import SPEC
from tenantry.runtime.counts import Guessing, ProposerCounts, Stats, TierCounts
from tenantry.runtime.namespace import Namespace

DIGEST = bytes(range(100, 132))
NGRAM = ProposerCounts("ngram", False, 10, 40, 22, (10, 8, 8), (8, 8, 6))
DRAFT = ProposerCounts("draft", True, 4, 8, 2, (4, 2, 0), (2, 0, 0))


def tenant_id(text: str) -> UUID:
    return ids.from_text("tenant", text)


@pytest.fixture(scope="module")
def guessed(live, tenant):
    """acme has an adapter of DIGEST; globex has none, and both used the base model."""
    other = live.make_tenant("globex")

    async def fill():
        async with live.gateway.parts.database.tenant(tenant_id(tenant[0])) as c:
            adapter, version = ids.uuid7(), ids.uuid7()
            await c.execute(
                "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, 'support', $3)",
                tenant_id(tenant[0]), adapter, live.gateway.parts.base.id,
            )  # fmt: skip
            await c.execute("INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, 9)",
                            tenant_id(tenant[0]), DIGEST)  # fmt: skip
            await c.execute(
                "INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest, bytes, manifest)"
                " VALUES ($1, $2, $3, 1, 'ready', $4, 9, $5)",
                tenant_id(tenant[0]), version, adapter, DIGEST, {},
            )  # fmt: skip

    live.run(fill())
    mine, theirs = tenant_id(tenant[0]).bytes, tenant_id(other[0]).bytes
    live.engine.guessing = (
        Guessing(Namespace(mine, SPEC.digest).key, None, 50, 72, (NGRAM,)),
        Guessing(Namespace(theirs, SPEC.digest).key, None, 7, 7, ()),
        Guessing(Namespace(mine, DIGEST).key, DIGEST, 100, 102, (DRAFT,)),
        Guessing(b"x" * 32, None, 1, 1, ()),  # of a tenant that is gone
    )
    yield other
    live.engine.guessing = ()


def test_a_tenant_sees_its_own_and_nobody_elses(api, live, guessed):
    adapter, base = api.get("/api/v1/speculation").json()["data"]
    assert (adapter["model"], adapter["digest"], adapter["tenant"]) == ("support:1", DIGEST.hex(), "acme")
    assert (adapter["steps"], adapter["tokens"], adapter["steps_saved"]) == (100, 102, 2)
    [draft] = adapter["proposers"]
    assert (draft["proposer"], draft["acceptance"], draft["by_position"]) == ("draft", 0.25, [0.5, 0.0])
    assert (base["model"], base["digest"], base["tokens_per_step"]) == ("base", None, 1.44)
    [ngram] = base["proposers"]
    assert (ngram["drafted_tokens"], ngram["accepted_tokens"]) == (40, 22)
    assert ngram["by_position"] == [0.8, 1.0, 0.75]
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {guessed[1]}"}) as globex:
        [only] = globex.get("/api/v1/speculation").json()["data"]
    assert (only["tenant"], only["model"], only["steps"], only["proposers"]) == ("globex", "base", 7, [])


def test_the_operator_sees_everyones(api, live, guessed):
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {live.operator_key}"}) as operator:
        rows = operator.get("/api/v1/speculation/all").json()["data"]
    assert [(row["tenant"], row["model"]) for row in rows] == [
        ("acme", "support:1"),
        ("acme", "base"),
        ("globex", "base"),
    ]
    assert api.get("/api/v1/speculation/all").status_code == 403


def test_an_engine_that_is_away_is_said_to_be(api, live, guessed):
    live.engine.ready = False
    assert api.get("/api/v1/speculation").status_code == 503


def test_metrics_are_by_proposer_and_position(live, api):
    live.engine.stats = Stats(proposers=(DRAFT, NGRAM))
    text = httpx.get(f"{live.url}/metrics").text
    live.engine.stats = None
    assert 'tenantry_engine_guesses_total{proposer="ngram",weights="base"} 40.0' in text
    assert 'tenantry_engine_guesses_accepted_total{proposer="draft",weights="adapter"} 2.0' in text
    assert 'tenantry_engine_guesses_tried_at_total{position="1",proposer="ngram",weights="base"} 8.0' in text
    assert 'tenantry_engine_guesses_accepted_at_total{position="2",proposer="ngram",weights="base"} 6.0' in text
    assert 'position="2",proposer="draft"' not in text


def test_metrics_tell_the_tiers_of_kv_apart(live, api):
    host, disk = TierCounts("host", 3, 9, 300, 5, 1), TierCounts("disk", 4, 8, 400, 2, 0, 6, 7)
    live.engine.stats = Stats(tiers=(host, disk))
    text = httpx.get(f"{live.url}/metrics").text
    live.engine.stats = None
    assert 'tenantry_engine_tier_pages{tier="host"} 3.0' in text
    assert 'tenantry_engine_tier_bytes{tier="disk"} 400.0' in text
    assert 'tenantry_engine_tier_hits_total{tier="disk"} 2.0' in text
    assert 'tenantry_engine_tier_bad_total{tier="disk"} 6.0' in text
    assert 'tenantry_engine_tier_failures_total{tier="disk"} 7.0' in text
