"""Peers are launched with the same threads and no handicap, and one that does not come up says why."""

import os
import sys
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.load import Answer, Outcome
from benchmarks.peers import Launch, PeerAbsent
from benchmarks.run import FOREIGN
from benchmarks.server import Served
from benchmarks.workload import Call, Workload

ADAPTERS = {f"{i:02d}": Path(f"/adapters/{i:02d}") for i in range(3)}
HEALTHY = """
import sys, os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.environ["MADE"] == "so" else 500)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@pytest.fixture
def installed(tmp_path) -> Path:
    """A peers' folder that looks filled; its python writes no GGUF and finds nothing wrong."""
    for program in ("vllm/bin/vllm", "llama/venv/bin/python"):
        (tmp_path / program).parent.mkdir(parents=True)
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    return tmp_path


def option(launch: Launch, name: str) -> str:
    return launch.command[launch.command.index(name) + 1]


@pytest.mark.parametrize(("hardware", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_vllm_computes_in_what_the_processor_does_fastest(installed, monkeypatch, hardware: bool, dtype: str):
    monkeypatch.setattr(peers, "bf16_in_hardware", lambda: hardware)
    launch = peers.PEERS["vllm, LoRA off"](installed, 1, Path("/base"), ADAPTERS)
    assert option(launch, "--dtype") == launch.how == dtype
    assert "--enable-lora" not in launch.command
    assert launch.variables["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"


def test_vllm_gets_every_adapter_by_name_and_room_for_those_in_flight(installed):
    launch = peers.PEERS["vllm"](installed, 1, Path("/base"), ADAPTERS)
    named = launch.command[launch.command.index("--lora-modules") + 1 :]
    assert named == tuple(f"{name}={path}" for name, path in ADAPTERS.items())
    assert option(launch, "--max-loras") == "16"
    assert launch.served.by == "model"


@pytest.mark.parametrize("kind", ["BF16", "F16", "Q8_0"])
def test_llama_cpp_runs_the_file_of_its_kind_on_every_core(installed, kind: str):
    wheel = peers.PEERS[f"llama.cpp {kind}"](installed, 7, Path("/base"), ADAPTERS)
    assert wheel.command[1].endswith("llama_wheel.py")
    built = installed / "llama" / "build" / "bin" / "llama-server"
    built.parent.mkdir(parents=True)
    built.touch()
    launch = peers.PEERS[f"llama.cpp {kind}"](installed, 7, Path("/base"), ADAPTERS)
    assert launch.command[0] == str(built)
    assert option(launch, "--model").endswith(f"model-{kind}.gguf")
    assert option(launch, "--threads") == option(launch, "--threads-batch") == str(os.cpu_count())
    files = [Path(text).name for text in option(launch, "--lora").split(",")]
    assert files == [f"adapter-{name}.gguf" for name in ADAPTERS]  # a request names an adapter by its place here
    assert launch.served.by == "lora"


def test_a_model_that_cannot_be_written_as_gguf_says_why(installed):
    (installed / "llama/venv/bin/python").write_text("#!/bin/sh\necho 'KeyError: rope' >&2\nexit 1\n")
    with pytest.raises(PeerAbsent, match="GGUF: KeyError: rope"):
        peers.PEERS["llama.cpp F16"](installed, 7, Path("/base"), ADAPTERS)


@pytest.mark.parametrize("peer", FOREIGN)
def test_what_is_not_installed_is_absent(tmp_path, peer: str):
    with (
        pytest.raises(PeerAbsent, match="not installed"),
        peers.start(peer, tmp_path, Path("/base"), ADAPTERS, tmp_path),
    ):
        raise AssertionError("started")


def launched(_peers: Path, port: int, *_: object, program: str) -> Launch:
    served = Served(f"http://127.0.0.1:{port}", "none", "base")
    return Launch((sys.executable, "-c", program, str(port)), served, "as it is", {"MADE": "so"})


def test_a_peer_serves_to_the_end_of_the_block_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "fake", partial(launched, program=HEALTHY))
    with peers.start("fake", tmp_path, tmp_path, ADAPTERS, tmp_path) as launch:
        urllib.request.urlopen(f"{launch.served.url}/health").close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{launch.served.url}/health")


def test_a_peer_that_ends_early_is_absent_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "fake", partial(launched, program="raise SystemExit('no such  option')"))
    with (
        pytest.raises(PeerAbsent, match=r"^no such option$"),
        peers.start("fake", tmp_path, tmp_path, ADAPTERS, tmp_path),
    ):
        raise AssertionError("started")


def test_speed_counts_only_a_workload_that_was_answered_whole(monkeypatch):
    call = Call("W2", None, (1, 2), 4, "W2-0")
    workload, served = Workload("W2", (call,), 1), Served("http://nowhere", "none", "base")
    whole, cut = (Answer(call, 0.0, [0.5, 2.0], counted=counted) for counted in (4, 3))
    monkeypatch.setattr(Served, "drive", lambda *_: Outcome("W2", 2.0, (whole,)))
    assert peers.speed(served, workload) == 2.0
    monkeypatch.setattr(Served, "drive", lambda *_: Outcome("W2", 2.0, (whole, cut)))
    with pytest.raises(PeerAbsent, match=r"W2: 1 requests failed: .'3 of 4 tokens'"):
        peers.speed(served, workload)
