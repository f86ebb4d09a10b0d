"""`make serve` as a person meets it: printed lines that work, data that stays, and nothing left behind by Ctrl-C."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
TENANTRY = [sys.executable, "-m", "tenantry.platform.cli"]


@dataclass
class Server:
    """A `tenantry serve --demo` in a process of its own. started_s: until it said ready."""

    process: "subprocess.Popen[bytes]"
    data: Path
    log: Path
    started_s: float

    @property
    def said(self) -> str:
        return self.log.read_text()

    def cli(self, *arguments: str) -> str:
        command = [*TENANTRY, *arguments, "--data-dir", str(self.data)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    @property
    def demo(self) -> dict:
        return json.loads(self.cli("demo", "--json"))


def start(data: Path) -> Server:
    log = data.parent / f"serve-{time.monotonic_ns()}.log"
    began = time.monotonic()
    with log.open("wb") as out:
        command = [*TENANTRY, "serve", "--demo", "--data-dir", str(data), "--port", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    while log.read_text().splitlines()[-1:] != ["ready"]:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() - began < 240, log.read_text()
        time.sleep(0.1)
    return Server(process, data, log, time.monotonic() - began)


def interrupt(server: Server) -> list[psutil.Process]:
    """Ctrl-C, as a terminal sends it. Returns what is still alive of all that was started."""
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    family += [p for p in psutil.process_iter(["cmdline"]) if str(server.data) in " ".join(p.info["cmdline"] or ())]
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(90) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    return alive


def stop(server: Server) -> None:
    """Whatever a test found: a server that outlives it would be in the way of all others."""
    if server.process.poll() is None:
        interrupt(server)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="tny-") as folder:
        running = start(Path(folder) / "data")
        try:
            yield running
        finally:
            stop(running)


def curl_lines(text: str) -> list[str]:
    return re.findall(r"^\s*(curl -s .*)$", text, re.MULTILINE)


def test_the_printed_lines_work_when_pasted(server: Server):
    lines = curl_lines(server.said)
    assert len(lines) == 2
    answers = []
    for line in lines:
        done = subprocess.run(line, shell=True, check=True, capture_output=True, text=True, timeout=60)
        answers.append(json.loads(done.stdout)["choices"][0]["message"]["content"])
    assert all(len(a.strip()) > 3 for a in answers)
    assert answers[0] != answers[1], "the same name and prompt for two tenants, answered by two different adapters"
    assert server.said.rstrip().endswith("ready")


def test_the_demo_describes_itself_to_scripts(server: Server):
    described = server.demo
    assert described["base_url"].startswith("http://127.0.0.1:")
    assert len(described["tenants"]) == 2
    for tenant in described["tenants"]:
        assert tenant.keys() == {"name", "api_key", "adapters"}
        assert tenant["adapters"]


def test_the_openai_client_speaks_to_every_adapter_and_the_base(server: Server):
    described = server.demo
    for tenant in described["tenants"]:
        client = openai.OpenAI(base_url=f"{described['base_url']}/v1", api_key=tenant["api_key"])
        models = {m.id for m in client.models.list()}
        assert set(tenant["adapters"]) < models
        for model in models:
            messages = [{"role": "user", "content": "Hello, where is my order?"}]
            whole = client.chat.completions.create(model=model, messages=messages, max_tokens=24, temperature=0)
            parts = client.chat.completions.create(
                model=model, messages=messages, max_tokens=24, temperature=0, stream=True,
                stream_options={"include_usage": True},
            )  # fmt: skip
            chunks = list(parts)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == whole.choices[0].message.content
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
            done = client.completions.create(model=model, prompt="The lamp", max_tokens=8, temperature=0)
            assert done.usage.completion_tokens <= 8


def test_a_tenant_cannot_call_or_see_the_others_adapters(server: Server):
    described = server.demo
    one, two = described["tenants"]
    foreign = next(a for a in two["adapters"] if a not in one["adapters"])
    client = openai.OpenAI(base_url=f"{described['base_url']}/v1", api_key=one["api_key"], max_retries=0)
    with pytest.raises(openai.NotFoundError) as theirs:
        client.completions.create(model=foreign, prompt="x", max_tokens=1)
    with pytest.raises(openai.NotFoundError) as nobodys:
        client.completions.create(model="no-such-adapter", prompt="x", max_tokens=1)
    assert theirs.value.body["message"] == nobodys.value.body["message"]
    assert foreign not in {m.id for m in client.models.list()}


def test_a_prefix_is_found_by_its_own_tenant_and_adapter_and_by_nobody_else(server: Server):
    one, two = server.demo["tenants"]
    shared = next(a for a in one["adapters"] if a in two["adapters"])
    prompt = "The lamp is blue and the kettle is made of copper. " * 6

    def cached(tenant: dict, model: str) -> int:
        client = openai.OpenAI(base_url=f"{server.demo['base_url']}/v1", api_key=tenant["api_key"])
        usage = client.completions.create(model=model, prompt=prompt, max_tokens=1).usage
        return usage.prompt_tokens_details.cached_tokens

    assert cached(one, shared) == 0
    assert cached(two, shared) == 0, "another tenant's adapter of the same name"
    assert cached(one, "tenantry-demo") == 0, "the base, same tenant"
    assert cached(two, "tenantry-demo") == 0, "the base, another tenant"
    assert cached(one, shared) > 32
    assert cached(one, "tenantry-demo") > 32


def test_a_conversation_is_not_resent_and_its_prefix_is_found(server: Server):
    tenant = server.demo["tenants"][0]
    client = openai.OpenAI(base_url=f"{server.demo['base_url']}/v1", api_key=tenant["api_key"])
    held = client.conversations.create(items=[{"role": "system", "content": "The lamp is blue. " * 12}])
    ask = {"model": tenant["adapters"][0], "conversation": held.id, "max_output_tokens": 12, "temperature": 0}
    first = client.responses.create(**ask, input="Hello, where is my order?")
    events = list(client.responses.create(**ask, input="And the lamp?", stream=True))
    second = events[-1].response
    assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens // 2
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert len(client.conversations.items.list(held.id).data) == 5
    shown = json.loads(
        server.cli("sessions", "show", first.x_session["id"], "--api-key", tenant["api_key"], "--json")
    )
    assert [turn["id"] for turn in shown["data"]] == [second.id, first.id]
    assert shown["data"][0]["cached_tokens"] == second.usage.input_tokens_details.cached_tokens


def test_an_adapter_is_used_seconds_after_its_upload(server: Server):
    key = server.demo["tenants"][0]["api_key"]
    folder = DEMO / "adapters" / "globex-dates"
    made = json.loads(server.cli("adapter", "upload", "fresh", str(folder), "--api-key", key, "--json"))
    assert made["state"] == "ready"
    client = openai.OpenAI(base_url=f"{server.demo['base_url']}/v1", api_key=key)
    raw = client.completions.with_raw_response.create(model="fresh", prompt="The green chair", max_tokens=4)
    assert raw.headers["x-tenantry-adapter-digest"] == made["digest"]


def test_usage_can_be_asked_by_adapter_key_and_hour(server: Server):
    tenant = server.demo["tenants"][0]
    adapter = tenant["adapters"][0]
    client = openai.OpenAI(base_url=f"{server.demo['base_url']}/v1", api_key=tenant["api_key"])

    def total(by: str) -> list[dict]:
        return json.loads(server.cli("usage", "--by", by, "--api-key", tenant["api_key"], "--json"))["data"]

    def of_adapter() -> dict:
        return next((r for r in total("adapter") if r["label"] == adapter), {"requests": 0, "completion_tokens": 0})

    before = of_adapter()
    used = client.completions.create(model=adapter, prompt="The lamp", max_tokens=6).usage
    deadline = time.monotonic() + 10
    while (after := of_adapter())["requests"] == before["requests"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert after["completion_tokens"] - before["completion_tokens"] == used.completion_tokens
    assert after["cost"] != "0"
    assert total("key")
    assert total("hour")


def wait_for_kv(folder: Path) -> None:
    """Until something of the session is on disk: the engine writes it behind its steps."""
    deadline = time.monotonic() + 60
    while not sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()):
        assert time.monotonic() < deadline, "nothing was written to disk"
        time.sleep(0.1)


def test_a_second_start_keeps_all_data_and_ctrl_c_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TENANTRY_DISK_CACHE_BYTES", str(1 << 28))
    with tempfile.TemporaryDirectory(prefix="tny-") as folder, contextlib.ExitStack() as ends:
        first = start(Path(folder) / "data")
        ends.callback(stop, first)
        described = first.demo
        tenant = described["tenants"][0]
        client = openai.OpenAI(base_url=f"{described['base_url']}/v1", api_key=tenant["api_key"])
        client.completions.create(model=tenant["adapters"][0], prompt="The lamp", max_tokens=4)
        ask = {"model": tenant["adapters"][0], "max_output_tokens": 4}
        turn = client.responses.create(**ask, input="The lamp is blue. " * 24)
        wait_for_kv(Path(folder) / "data" / "kv")
        assert interrupt(first) == []
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{described['base_url']}/live")
        second = start(Path(folder) / "data")
        ends.callback(stop, second)
        print(f"first start {first.started_s:.1f} s, second start {second.started_s:.1f} s")
        again = second.demo
        assert again["tenants"] == described["tenants"]
        client = openai.OpenAI(base_url=f"{again['base_url']}/v1", api_key=tenant["api_key"])
        client.completions.create(model=tenant["adapters"][0], prompt="The lamp", max_tokens=4)
        assert client.responses.retrieve(turn.id) == turn
        on = client.responses.create(**ask, input="And?", previous_response_id=turn.id)
        assert on.usage.input_tokens > turn.usage.total_tokens
        assert on.usage.input_tokens_details.x_cached_disk_tokens > 0, "KV of a session outlives the engine"
        rows = json.loads(second.cli("usage", "--api-key", tenant["api_key"], "--json"))["data"]
        assert sum(r["requests"] for r in rows) >= 1
        assert interrupt(second) == []
