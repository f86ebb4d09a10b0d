"""A whole server for a real browser: the demo served by `tenantry serve`, traffic through its public API, Chromium.

Shared by the browser's tests and the screenshots. Nothing here is invented: what pages show is what was served.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
START_S = 900


@dataclass
class Stage:
    """url: the gateway. keys: API keys by tenant, with `operator` among them."""

    url: str
    data: Path
    keys: dict[str, str]

    def api(self, tenant: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.keys[tenant]}"}, timeout=120)

    def traffic(self, rounds: int = 6) -> None:
        """Requests of both tenants to every adapter, and one conversation each."""
        demo = json.loads((DEMO / "demo.json").read_text())
        for tenant in demo["tenants"]:
            asked = [(a["name"], a["prompt"]) for a in tenant["adapters"]] + [("tenantry-demo", demo["model_prompt"])]
            with self.api(tenant["name"]) as api, ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda one, api=api: say(api, *one), asked * rounds))
                talk(api, tenant["adapters"][0]["name"])


def say(api: httpx.Client, model: str, text: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 60}
    api.post("/v1/chat/completions", json=body).raise_for_status()


def talk(api: httpx.Client, model: str) -> None:
    conversation = api.post("/v1/conversations", json={}).json()["id"]
    for text in ("Hello, my copper kettle leaks. The order is 4821.", "And the lamp too.", "When will it arrive?"):
        body = {"model": model, "conversation": conversation, "input": text, "max_output_tokens": 50}
        api.post("/v1/responses", json=body).raise_for_status()


@contextmanager
def served(data: Path, *options: str) -> Iterator[Stage]:
    log = data.parent / f"{data.name}.log"
    command = [sys.executable, "-m", "tenantry.platform.cli", "serve", "--demo", "--data-dir", str(data)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", "0", *options], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        began = time.monotonic()
        while log.read_text().splitlines()[-1:] != ["ready"]:
            if process.poll() is not None or time.monotonic() - began > START_S:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        keys = json.loads((data / "secrets" / "demo.json").read_text())
        keys["operator"] = (data / "secrets" / "operator.key").read_text().strip()
        yield Stage(json.loads((data / "address.json").read_text())["base_url"], data, keys)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def chromium() -> str | None:
    """The system's browser; none is ever downloaded."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
