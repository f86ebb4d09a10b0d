"""`make gpu`: M1-M5 against the byte floor and against others' kernels in one process, then a whole decode step.

Without a CUDA device the same lines run through Triton's interpreter at small shapes: results are compared, times
mean nothing, and nothing is judged. Imports nothing of the platform, so that a bare GPU image can run it.
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import triton

from benchmarks.gpu import attention, linear, lora, step
from benchmarks.gpu.device import REAL, Ceilings
from benchmarks.report import Report, table

PARTS: dict[str, Callable[[Report, Ceilings, Path | None], None]] = {
    "M1": lora.decode,
    "M2": lora.prefill,
    "M3": attention.measure,
    "M4": lambda report, ceilings, _: linear.linear(report, ceilings),
    "M5": lambda report, ceilings, _: linear.sampling(report, ceilings),
    "step": step.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder with open kernels (benchmarks/gpu/peers.py)")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, help="write the rows as JSON here, and the table beside it")
    a = parser.parse_args()
    if not (REAL or triton.knobs.runtime.interpret):
        parser.error("no CUDA device: TRITON_INTERPRET=1 must be in the environment, as `make gpu` puts it")
    name = torch.cuda.get_device_name() if REAL else f"no CUDA device: Triton's interpreter, {platform.machine()}"
    report = Report(name)
    print(f"{name}; torch {torch.__version__}, triton {triton.__version__}", flush=True)
    if not REAL:
        print("interpreted times mean nothing: only the comparisons with fp64 do", flush=True)
    ceilings = Ceilings.measure()
    report.add("read", ceilings.read / 1e9, "GB/s")
    report.add("copy", ceilings.copy / 1e9, "GB/s")
    report.add("GEMM", ceilings.flops / 1e12, "TFLOP/s")
    report.add("an empty kernel in a graph", ceilings.launch_us, "us")
    try:
        for part in a.only.split(","):
            PARTS[part](report, ceilings, a.peers)
    finally:
        if a.out:
            report.write(a.out)
            a.out.with_suffix(".md").write_text(table([report]))
    print(report.summary())


if __name__ == "__main__":
    main()
