"""What this processor can do, asked of the processor and of nothing else."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch


@dataclass(frozen=True, slots=True)
class CpuCapability:
    """amx_bf16: bf16 matrix tiles, through oneDNN. avx512: 512-bit vectors. numba: kernels can be compiled."""

    amx_bf16: bool
    avx512: bool
    numba: bool


@cache
def cpu_capability() -> CpuCapability:
    """The capability of the machine that runs this."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return CpuCapability(
        amx_bf16=bool(found.get("amx_bf16", False)),
        avx512=bool(found.get("avx512_f", False)),
        numba=find_spec("numba") is not None,
    )
