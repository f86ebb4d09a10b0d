"""Options of `tenantry serve` that reach the engine."""

from dataclasses import replace

import pytest

from tenantry.platform.cli import serve as command
from tenantry.platform.core import settings
from tenantry.platform.core.errors import ConfigurationError


def chosen_and_engine(monkeypatch: pytest.MonkeyPatch, tmp_path, **options):
    found = []

    async def record(chosen, engine, demo):
        found.append((chosen, engine))

    monkeypatch.setattr(command, "run", record)
    command.serve(demo=True, data_dir=tmp_path / "d", port=0, **options)
    return found[0]


def started(monkeypatch: pytest.MonkeyPatch, tmp_path, **options):
    """The EngineConfig that `serve --demo` with these options would start an engine with."""
    return chosen_and_engine(monkeypatch, tmp_path, **options)[1]


def places(monkeypatch, tmp_path, **options):
    """Name, role, end of the socket and folder of the journal of every engine."""
    chosen = replace(chosen_and_engine(monkeypatch, tmp_path, **options)[0], engine_socket="ipc:///x/e.sock")
    return [(p.name, p.role, p.socket.removeprefix("ipc:///x/"), p.journal.name) for p in chosen.fleet]


def test_one_engine_unless_more_are_asked_for(monkeypatch, tmp_path):
    assert places(monkeypatch, tmp_path) == [("engine", "both", "e.sock", "journal")]
    two = [("engine-0", "both", "e.sock.0", "engine-0"), ("engine-1", "both", "e.sock.1", "engine-1")]
    assert places(monkeypatch, tmp_path, engines=2) == two
    monkeypatch.setenv("TENANTRY_ENGINES", "3")
    assert len(places(monkeypatch, tmp_path)) == 3
    assert places(monkeypatch, tmp_path, engines=2) == two
    with pytest.raises(ConfigurationError, match="TENANTRY_ENGINES must be a whole number from 1 to 8"):
        settings.load({"TENANTRY_ENGINES": "9"})


def test_weights_come_from_the_option_then_the_environment(monkeypatch, tmp_path):
    assert started(monkeypatch, tmp_path).weights == "native"
    monkeypatch.setenv("TENANTRY_WEIGHTS", "w8a8")
    assert started(monkeypatch, tmp_path).weights == "w8a8"
    assert started(monkeypatch, tmp_path, weights="w4a16").weights == "w4a16"


def test_adapter_dtype_comes_from_the_option_then_the_environment(monkeypatch, tmp_path):
    assert started(monkeypatch, tmp_path).adapter_dtype == "native"
    monkeypatch.setenv("TENANTRY_ADAPTER_DTYPE", "int8")
    assert started(monkeypatch, tmp_path).adapter_dtype == "int8"
    assert started(monkeypatch, tmp_path, adapter_dtype="native").adapter_dtype == "native"


def test_roles_start_an_engine_each_and_need_each_other(monkeypatch, tmp_path):
    pair = [("prefill-0", "prefill", "e.sock.0", "prefill-0"), ("decode-1", "decode", "e.sock.1", "decode-1")]
    assert places(monkeypatch, tmp_path, roles="prefill,decode") == pair
    monkeypatch.setenv("TENANTRY_ROLES", "both,both")
    assert [place[0] for place in places(monkeypatch, tmp_path)] == ["engine-0", "engine-1"]
    for roles in ("prefill", "decode,both", "encode", "both," * 9):
        with pytest.raises(ConfigurationError, match="TENANTRY_ROLES"):
            settings.load({"TENANTRY_ROLES": roles})
    with pytest.raises(ConfigurationError, match="TENANTRY_ENGINES"):
        settings.load({"TENANTRY_ROLES": "prefill,decode", "TENANTRY_ENGINES": "2"})


def test_tiers_below_the_device_come_from_options_then_the_environment(monkeypatch, tmp_path):
    engine = started(monkeypatch, tmp_path)
    assert (engine.host_cache_bytes, engine.disk_cache_bytes, engine.disk_tenant_bytes) == (1 << 30, 0, 0)
    assert engine.disk_cache_dir == tmp_path / "d" / "kv"
    monkeypatch.setenv("TENANTRY_HOST_CACHE_BYTES", "5000")
    monkeypatch.setenv("TENANTRY_DISK_CACHE_BYTES", "6000")
    monkeypatch.setenv("TENANTRY_DISK_TENANT_BYTES", "700")
    monkeypatch.setenv("TENANTRY_DISK_CACHE_DIR", str(tmp_path / "elsewhere"))
    engine = started(monkeypatch, tmp_path)
    assert (engine.host_cache_bytes, engine.disk_cache_bytes, engine.disk_tenant_bytes) == (5000, 6000, 700)
    assert engine.disk_cache_dir == tmp_path / "elsewhere"
    engine = started(
        monkeypatch, tmp_path, host_cache_bytes=1, disk_cache_bytes=2, disk_tenant_bytes=3, disk_cache_dir=tmp_path
    )
    assert (engine.host_cache_bytes, engine.disk_cache_bytes, engine.disk_tenant_bytes) == (1, 2, 3)
    assert engine.disk_cache_dir == tmp_path
    monkeypatch.setenv("TENANTRY_HOST_CACHE_BYTES", "0")
    with pytest.raises(SystemExit):
        started(monkeypatch, tmp_path)


def test_when_memory_is_short_comes_from_the_option_then_the_environment(monkeypatch, tmp_path):
    assert started(monkeypatch, tmp_path).memory_pressure == 0.95
    monkeypatch.setenv("TENANTRY_MEMORY_PRESSURE", "0.8")
    assert started(monkeypatch, tmp_path).memory_pressure == 0.8
    assert started(monkeypatch, tmp_path, memory_pressure=0.0).memory_pressure == 0.0
    with pytest.raises(ConfigurationError, match="TENANTRY_MEMORY_PRESSURE"):
        settings.load({"TENANTRY_MEMORY_PRESSURE": "1.5"})


def test_floors_and_ceilings_of_tenants_reach_the_engine(monkeypatch, tmp_path):
    cache = started(monkeypatch, tmp_path).cache
    assert (cache.tenant_min, cache.tenant_max) == (0, 0)
    monkeypatch.setenv("TENANTRY_TENANT_KV_MIN", "5")
    cache = started(monkeypatch, tmp_path, tenant_kv_max=50).cache
    assert (cache.tenant_min, cache.tenant_max) == (5, 50)
    with pytest.raises(SystemExit):
        started(monkeypatch, tmp_path, tenant_kv_max=4)


def test_memory_is_one_unless_asked_otherwise(monkeypatch, tmp_path):
    engine = started(monkeypatch, tmp_path)
    assert (engine.memory, engine.memory_bytes) == ("unified", 0)
    monkeypatch.setenv("TENANTRY_MEMORY", "split")
    monkeypatch.setenv("TENANTRY_MEMORY_BYTES", "1000000")
    engine = started(monkeypatch, tmp_path)
    assert (engine.memory, engine.memory_bytes) == ("split", 1_000_000)
    engine = started(monkeypatch, tmp_path, memory="unified", memory_bytes=5)
    assert (engine.memory, engine.memory_bytes) == ("unified", 5)


def test_how_steps_are_made_up_comes_from_the_option_then_the_environment(monkeypatch, tmp_path):
    schedule = started(monkeypatch, tmp_path).schedule
    assert (schedule.itl_target_ms, schedule.policy, schedule.batch_delay_ms) == (0.0, "mixed", 0.0)
    monkeypatch.setenv("TENANTRY_ITL_TARGET_MS", "40")
    monkeypatch.setenv("TENANTRY_POLICY", "prefill-first")
    monkeypatch.setenv("TENANTRY_BATCH_DELAY_MS", "2.5")
    schedule = started(monkeypatch, tmp_path).schedule
    assert (schedule.itl_target_ms, schedule.policy, schedule.batch_delay_ms) == (40.0, "prefill-first", 2.5)
    schedule = started(monkeypatch, tmp_path, itl_target_ms=9.0, policy="mixed", batch_delay_ms=0.0).schedule
    assert (schedule.itl_target_ms, schedule.policy, schedule.batch_delay_ms) == (9.0, "mixed", 0.0)


def test_tenants_weights_are_names_and_numbers():
    assert settings.load({"TENANTRY_TENANT_WEIGHTS": "acme=4,a=b=0.5"}).weights_by_tenant == {"acme": 4.0, "a=b": 0.5}
    assert settings.load({}).weights_by_tenant == {}
    for bad in ("acme", "acme=0", "=3", "acme=1000", "acme=x"):
        with pytest.raises(ConfigurationError, match="TENANTRY_TENANT_WEIGHTS must look like"):
            settings.load({"TENANTRY_TENANT_WEIGHTS": bad})


def test_an_unknown_scheme_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="TENANTRY_WEIGHTS must be one of native, w8a16, w8a8, w4a16"):
        settings.load({"TENANTRY_WEIGHTS": "int2"})
