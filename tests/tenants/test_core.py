"""The floor: settings, secrets, money, ids, logs, errors, the pool's promises and the migrator."""

import asyncio
import io
import json
import sys
import threading
import time
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.platform.core import errors, ids, logging, money
from tenantry.platform.core.database import Database
from tenantry.platform.core.migrate import head, migrate, require_current
from tenantry.platform.core.roles import OWNER
from tenantry.platform.core.secrets import load_peppers, write_secret
from tenantry.platform.core.settings import Settings, load


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_money_survives_its_spelling(nano: int):
    assert money.parse(money.render(nano)) == nano


@pytest.mark.parametrize(
    "text", ["", "1.", ".5", "1e3", "NaN", "1.0000000001", "١", "10000000000", "1,5", " 1", "1\n"]
)
def test_what_is_not_money_is_refused_by_name(text: str):
    with pytest.raises(errors.InvalidInput) as refused:
        money.parse(text, "budget")
    assert refused.value.param == "budget"


def test_ids_sort_by_time_and_are_version_seven():
    made = [ids.uuid7() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {(u.version, u.variant) for u in made} == {(7, "specified in RFC 4122")}
    assert abs((made[0].int >> 80) / 1000 - time.time()) < 5
    assert ids.from_text("adapter", ids.to_text("adapter", made[0])) == made[0]


@pytest.mark.parametrize(
    "text", ["", "adp_", "adp_zz", "key_" + "0" * 32, "adp_" + "0" * 33, "adp_" + "A" * 32, "../x"]
)
def test_an_id_of_another_shape_is_the_same_404(text: str):
    with pytest.raises(errors.NotFound):
        ids.from_text("adapter", text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TENANTRY_PORT", "x"), ("TENANTRY_PORT", "70000"), ("TENANTRY_PORT", "-1"), ("TENANTRY_PORT", "٣"),
        ("TENANTRY_LOG_LEVEL", "loud"), ("TENANTRY_DATABASE_URL", "mysql://x/y"), ("TENANTRY_AUTH_TTL", "9"),
        ("TENANTRY_NO_SUCH_THING", "1"), ("TENANTRY_HOST", "a b"), ("TENANTRY_OWNER_DATABASE_URL", "postgresql://h/d"),
        ("TENANTRY_DATA_DIR", ""),
    ],
)  # fmt: skip
def test_a_bad_setting_stops_the_start_with_one_line_that_names_it(key: str, value: str):
    with pytest.raises(errors.ConfigurationError) as refused:
        load({key: value})
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_flags_win_over_the_environment():
    settings = load({"TENANTRY_PORT": "9000", "HOME": "/x"}, port=9100, host=None)
    assert (settings.port, settings.host) == (9100, Settings().host)


def test_peppers_are_made_once_private_and_refused_when_others_can_read(tmp_path: Path):
    settings = load({}, data_dir=tmp_path)
    first = load_peppers(settings)
    assert load_peppers(settings) == first
    file = settings.secrets_dir / "key-peppers.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings.secrets_dir.stat().st_mode & 0o777 == 0o700
    assert first.by_version[1].hex() not in repr(first)
    write_secret(file, b"{}")  # the first writer wins
    assert load_peppers(settings) == first
    file.chmod(0o644)
    with pytest.raises(errors.ConfigurationError, match="readable by others"):
        load_peppers(settings)
    file.chmod(0o600)
    for damage in (b"", b"{}", b'{"current":2,"peppers":{"1":"00"}}', b'{"current":1,"peppers":{"1":"abcd"}}'):
        file.write_bytes(damage)
        with pytest.raises(errors.ConfigurationError, match="pepper"):
            load_peppers(settings)


@pytest.mark.parametrize("style", ["json", "console"])
def test_logs_carry_no_secret_and_no_prompt(monkeypatch, style):
    import structlog

    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logging.configure("info", style)
    key = "tny_live_0123456789abcdef_CANARYCANARYCANARYCANARYCANARY00abcdef"
    log = structlog.get_logger()
    log.info("x", header=f"Bearer {key}", authorization="CANARY", nested={"api_key": "CANARY", "list": [key]})
    log.info("x", dsn="postgresql://u:CANARY@h/d", note="see postgresql://u:CANARY@h/d", messages=["CANARY"])
    log.info("x", prompt="CANARY", public_id="0123456789abcdef")
    try:
        raise ValueError(f"bad key {key}")
    except ValueError:
        log.exception("boom")
    import logging as standard

    standard.getLogger("asyncpg").error("failed with %s", key)
    text = out.getvalue()
    structlog.reset_defaults()
    assert "CANARY" not in text
    assert text.count("0123456789abcdef") >= 3
    if style == "json":
        assert all(json.loads(line) for line in text.splitlines())


def test_every_error_has_a_status_a_type_and_the_one_envelope():
    def tree(cls):
        yield cls
        for sub in cls.__subclasses__():
            yield from tree(sub)

    ours = [cls for cls in tree(errors.PlatformError) if cls.__module__ == errors.__name__][1:]
    for cls in ours:
        assert 400 <= cls.status < 600
        assert cls.status != 500
        assert cls.type
        assert cls.default_code
    body = errors.InvalidInput("x" * 5000, param="n").envelope("req_1")["error"]
    assert body["param"] == "n"
    assert body["request_id"] == "req_1"
    assert len(body["message"]) == errors.MAX_MESSAGE
    assert errors.RateLimited("m", retry_ms=1500).headers == {"retry-after": "2", "retry-after-ms": "1500"}
    assert errors.QuotaExceeded("m").headers == {"x-should-retry": "false"}


async def test_the_pool_never_waits_longer_than_it_says(pg):
    database = await Database.connect(pg.app, load({}, pool_size=2, pool_wait=0.1))
    async with database.autocommit(), database.autocommit():
        started = time.monotonic()
        with pytest.raises(errors.DatabaseUnavailable) as refused:
            await database.ping()
        assert time.monotonic() - started < 1
        assert refused.value.code == "database_busy"
    await database.ping()
    await database.close()


async def test_a_slow_statement_is_cut_and_becomes_503(pg):
    database = await Database.connect(pg.app, load({}, statement_timeout=0.2))
    with pytest.raises(errors.DatabaseUnavailable):
        async with database.autocommit() as c:
            await c.execute("SELECT pg_sleep(5)")
    await database.close()


async def test_no_tenant_and_no_open_transaction_outlives_its_block(pg, acme):
    database = await Database.connect(pg.app, load({}, pool_size=2))

    async def work(i: int) -> None:
        async with database.tenant(acme.tenant.id) as c:
            await c.execute("SELECT pg_sleep(0.05)")
            if i % 3 == 0:
                raise ValueError("a bug in a block")

    tasks = [asyncio.create_task(work(i)) for i in range(2)]
    await asyncio.sleep(0.02)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with database.autocommit() as a, database.autocommit() as b:
        for c in (a, b):
            assert not c.is_in_transaction()
            assert not await c.fetchval("SELECT current_setting('app.tenant_id', true)")
    async with database.autocommit() as c:
        await c.execute("BEGIN")  # a caller that breaks the rule
    async with database.autocommit() as c:
        assert not c.is_in_transaction()
    await database.close()


async def test_a_server_that_comes_back_is_used_again(pg, database: Database):
    await database.ping()
    admin = await asyncpg.connect(pg.admin)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    await admin.close()
    for _ in range(3):
        try:
            await database.ping()
            break
        except errors.DatabaseUnavailable:
            await asyncio.sleep(0.05)
    await database.ping()


@pytest.mark.parametrize("turns", range(6))
async def test_a_server_that_says_goodbye_is_a_typed_outage_however_much_of_it_was_read(pg, database, turns: int):
    """`turns` of the loop between the goodbye's arrival and the next query: unread, read without the end, ended."""

    async def end(pid: int) -> None:
        admin = await asyncpg.connect(pg.admin)
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        await admin.close()

    with pytest.raises(errors.DatabaseUnavailable):
        async with database.autocommit() as c:
            ending = threading.Thread(target=asyncio.run, args=(end(c.get_server_pid()),))
            ending.start()
            ending.join()  # this loop stands still meanwhile
            for _ in range(turns):
                await asyncio.sleep(0)
            await c.fetchval("SELECT 1")
    await database.ping()


async def test_migrating_is_idempotent_and_two_migrators_agree(postgres):
    name = "fresh_for_migration"
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    dsn = postgres.dsn(OWNER, name)
    c = await asyncpg.connect(postgres.dsn(OWNER, name))
    with pytest.raises(errors.ConfigurationError, match="tenantry migrate"):
        await require_current(c)
    code = f"from tenantry.platform.core.migrate import migrate; migrate({dsn!r})"
    racers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=Path(__file__).parents[2] / ".src")
        for _ in range(2)
    ]
    assert [await racer.wait() for racer in racers] == [0, 0]
    await require_current(c)
    tables = await c.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    started = time.perf_counter()
    await asyncio.to_thread(migrate, dsn)
    print(f"a migration with nothing to do: {time.perf_counter() - started:.3f} s")
    assert await c.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == tables
    assert await c.fetchval("SELECT version_num FROM alembic_version") == head()
    await c.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(errors.ConfigurationError, match="9999"):
        await require_current(c)
    await c.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
