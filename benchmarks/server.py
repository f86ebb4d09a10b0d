"""Runs the real server for a benchmark: `tenantry serve` in a process of its own, in a data directory of its own.

Everything goes through the command line and the REST API, as a user's set-up would.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.load import Outcome, drive
from benchmarks.workload import Workload


@dataclass(frozen=True, slots=True)
class Served:
    """A running server, ours or a peer's. base: the name of the base model. key: a tenant's API key. by: how the
    server is told an adapter (load.drive)."""

    url: str
    key: str
    base: str
    by: Literal["model", "lora"] = "model"

    def drive(self, workload: Workload) -> Outcome:
        return asyncio.run(drive(self.url, self.key, self.base, workload, by=self.by))


def tenantry(*arguments: str) -> str:
    command = [sys.executable, "-m", "tenantry.platform.cli", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def serve(model: Path, adapters: list[tuple[str, Path]], data: Path, *options: str) -> Iterator[Served]:
    """Serve `model` with the adapters uploaded for one tenant; stop everything at the end of the block."""
    log = data.with_suffix(".log")
    data.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tenantry.platform.cli", "serve", "--model", str(model)]
    command += ["--data-dir", str(data), "--port", "0", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(process, log)
        where = ("--data-dir", str(data), "--json")
        url = json.loads((data / "address.json").read_text())["base_url"]
        tenantry("tenant", "create", "bench", *where)
        key = json.loads(tenantry("key", "create", "bench", "--tenant", "bench", *where))["key"]
        for name, folder in adapters:
            tenantry("adapter", "upload", name, str(folder), "--api-key", key, *where)
        yield Served(url, key, model.name)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(process: "subprocess.Popen[bytes]", log: Path, limit_s: float = 600) -> None:
    deadline = time.monotonic() + limit_s
    while "ready" not in log.read_text(errors="replace").splitlines()[-1:]:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not become ready:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)
