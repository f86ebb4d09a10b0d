"""Others' kernels in this process, over the same weights: those that torch and PEFT bring, and open Triton kernels.

The latter are read from a folder given on the command line, outside of this repository, as DIR/PEER/FILE.py under
the files' own names; what they import of their projects is stood in for here. FlashInfer is a package, taken where
it is installed. Where the files come from:

    vllm      vllm/lora/ops/triton_ops/{lora_shrink_op,lora_expand_op,kernel_utils,utils,lora_kernel_metadata}.py
              (in its wheels, 0.32 tried)
    sglang    python/sglang/srt/lora/triton_ops/{chunked_sgmv_shrink,chunked_sgmv_expand}.py
              (as of its commits 0612c633 and 00d46e7a; later they are imports of other files)
    lmdeploy  lmdeploy/pytorch/kernels/cuda/{fused_lora,pagedattention,utils}.py
    lightllm  lightllm/models/llama/triton_kernel/{gqa_flash_decoding_stage1,gqa_flash_decoding_stage2}.py
"""

import importlib.util
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton
import triton.language as tl


class PeerAbsent(Exception):
    """Why a peer's kernel cannot be timed here."""


class QuantPolicy(IntEnum):
    """LMDeploy's names of how keys and values are stored."""

    NONE, INT4, INT8, FP8, FP8_E5M2, TURBO_QUANT = 0, 4, 8, 16, 17, 42


def module(name: str, **contents: Any) -> ModuleType:
    """A stand-in for a module that a kernel's file imports."""
    made = ModuleType(name)
    made.__path__ = []
    for key, value in contents.items():
        setattr(made, key, value)
    return made


class Logger(SimpleNamespace):
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None


def refuse_to_register(**_: object) -> None:
    """vLLM then falls back to the plain function."""
    raise AttributeError("no custom operators here")


class Flags:
    """vLLM's settings: everything off."""

    VLLM_TUNED_CONFIG_FOLDER = None

    def __getattr__(self, _name: str) -> bool:
        return False


def to_device(data: Any, device: Any = None, dtype: Any = None, out: Any = None) -> torch.Tensor:
    return torch.as_tensor(data, dtype=dtype).to(device)


def capability(level: int) -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= divmod(level, 10)


def uncached(first: Any) -> Any:
    """SGLang's cache of compiled kernels, of a kernel or made for one: left out."""
    return first if hasattr(first, "__getitem__") else lambda kernel: kernel


STANDING_IN: dict[str, Callable[[], dict[str, ModuleType]]] = {
    "vllm": lambda: {
        "vllm": module("vllm", envs=Flags()),
        "vllm.envs": module("vllm.envs"),
        "vllm.logger": module("vllm.logger", init_logger=lambda _name: Logger()),
        "vllm.platforms": module(
            "vllm.platforms",
            current_platform=SimpleNamespace(is_cuda=torch.cuda.is_available, has_device_capability=capability),
        ),
        "vllm.triton_utils": module("vllm.triton_utils", tl=tl, triton=triton, HAS_TRITON=True),
        "vllm.utils": module("vllm.utils"),
        "vllm.utils.math_utils": module("vllm.utils.math_utils", next_power_of_2=triton.next_power_of_2),
        "vllm.utils.torch_utils": module(
            "vllm.utils.torch_utils", direct_register_custom_op=refuse_to_register, async_tensor_h2d=to_device
        ),
        "vllm.lora": module("vllm.lora"),
        "vllm.lora.ops": module("vllm.lora.ops"),
        "vllm.lora.ops.triton_ops": module("vllm.lora.ops.triton_ops"),
    },
    "sglang": lambda: {
        "python": module("python"),
        "python.sglang": module("python.sglang"),
        "python.sglang.utils": module("python.sglang.utils", cached_triton_kernel=uncached),
        "sglang": module("sglang"),
        "sglang.srt": module("sglang.srt"),
        "sglang.srt.lora": module("sglang.srt.lora"),
        "sglang.srt.lora.utils": module("sglang.srt.lora.utils", LoRABatchInfo=SimpleNamespace),
        "sglang.srt.lora.triton_ops": module("sglang.srt.lora.triton_ops"),
    },
    "lmdeploy": lambda: {
        "lmdeploy": module("lmdeploy"),
        "lmdeploy.messages": module("lmdeploy.messages", QuantPolicy=QuantPolicy),
        "lmdeploy.utils": module("lmdeploy.utils", get_logger=lambda _name: Logger()),
        "lmdeploy.kernels": module("lmdeploy.kernels"),
        "lmdeploy.kernels.turbo_quant": module("lmdeploy.kernels.turbo_quant", hadamard_rotate=None),
    },
    "lightllm": lambda: {"lightllm": module("lightllm"), "lightllm.kernels": module("lightllm.kernels")},
}
PACKAGE = {
    "vllm": "vllm.lora.ops.triton_ops",
    "sglang": "sglang.srt.lora.triton_ops",
    "lmdeploy": "lmdeploy.kernels",
    "lightllm": "lightllm.kernels",
}


def load(folder: Path | None, peer: str, *names: str) -> tuple[ModuleType, ...]:
    """The peer's files as modules, in an order in which each finds those before it. Raises PeerAbsent."""
    if folder is None:
        raise PeerAbsent("no folder of peers was given")
    for name, made in STANDING_IN[peer]().items():
        sys.modules.setdefault(name, made)
    found = []
    for name in names:
        path, full = folder / peer / f"{name}.py", f"{PACKAGE[peer]}.{name}"
        if full not in sys.modules:
            spec = importlib.util.spec_from_file_location(full, path)
            if spec is None or spec.loader is None or not path.exists():
                raise PeerAbsent(f"{peer}/{name}.py is not in the peers' folder")
            sys.modules[full] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[full])
            except Exception as failed:
                del sys.modules[full]
                raise PeerAbsent(f"{peer}/{name}.py: {type(failed).__name__}: {failed}") from failed
        found.append(sys.modules[full])
    return tuple(found)
