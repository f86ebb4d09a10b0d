"""Options of `tenantry serve` that reach the engine."""

import pytest

from tenantry.platform.cli import serve as command
from tenantry.platform.core import settings
from tenantry.platform.core.errors import ConfigurationError


def started(monkeypatch: pytest.MonkeyPatch, tmp_path, **options):
    """The EngineConfig that `serve --demo` with these options would start an engine with."""
    found = []

    async def record(chosen, engine, demo):
        found.append(engine)

    monkeypatch.setattr(command, "run", record)
    command.serve(demo=True, data_dir=tmp_path / "d", port=0, **options)
    return found[0]


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


def test_memory_is_one_unless_asked_otherwise(monkeypatch, tmp_path):
    engine = started(monkeypatch, tmp_path)
    assert (engine.memory, engine.memory_bytes) == ("unified", 0)
    monkeypatch.setenv("TENANTRY_MEMORY", "split")
    monkeypatch.setenv("TENANTRY_MEMORY_BYTES", "1000000")
    engine = started(monkeypatch, tmp_path)
    assert (engine.memory, engine.memory_bytes) == ("split", 1_000_000)
    engine = started(monkeypatch, tmp_path, memory="unified", memory_bytes=5)
    assert (engine.memory, engine.memory_bytes) == ("unified", 5)


def test_an_unknown_scheme_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="TENANTRY_WEIGHTS must be one of native, w8a16, w8a8, w4a16"):
        settings.load({"TENANTRY_WEIGHTS": "int2"})
