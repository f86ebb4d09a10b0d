"""What the uploaded tensors are: which module each belongs to, whether shapes and values can be served.

Owns the mapping from PEFT's tensor names to modules and the numeric checks, chunk by chunk, with numpy. It must
not know the configuration file's grammar or where files lie.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenantry.adapters.canonical import NUMPY_DTYPES
from tenantry.adapters.errors import Code, Findings
from tenantry.adapters.manifest import MODULES, PARENT, BaseSpec, Limits, ModuleEntry
from tenantry.adapters.peft import Target
from tenantry.adapters.safetensors_header import Tensor, TensorFile

Place = tuple[int, str]
Pair = dict[str, Tensor]

_NAME = re.compile(
    r"base_model\.model\.model\.layers\.(0|[1-9][0-9]{0,5})\.(self_attn|mlp)\.([a-z_]+)\.lora_([AB])\.weight"
)
_UNSUPPORTED = ("lora_embedding_", "lora_magnitude_vector", "lora_B.bias", "embed_tokens", "lm_head",
                "modules_to_save", "token_adapter", "trainable_tokens")  # fmt: skip
_CHUNK_BYTES = 4 << 20
_BF16_MAX = 3.3895313892515355e38


def assign(tensors: Sequence[Tensor], base: BaseSpec, findings: Findings) -> dict[Place, Pair]:
    """Tensors by module, each pair under the keys "A" and "B". What belongs nowhere is reported by name."""
    pairs: dict[Place, Pair] = {}
    for tensor in tensors:
        match = _NAME.fullmatch(tensor.name)
        if match is None or PARENT.get(match[3]) != match[2]:
            special = any(part in tensor.name for part in _UNSUPPORTED)
            code = Code.FEATURE_UNSUPPORTED if special else Code.UNKNOWN_MODULE
            findings.problem(code, tensor.name, "is not the A or B of a module that an adapter may change")
        elif int(match[1]) >= base.layers:
            findings.problem(Code.UNKNOWN_MODULE, tensor.name, f"the base model has {base.layers} layers")
        else:
            pairs.setdefault((int(match[1]), match[3]), {})[match[4]] = tensor
    return pairs


def tensor_name(place: Place, side: str) -> str:
    layer, module = place
    return f"base_model.model.model.layers.{layer}.{PARENT[module]}.{module}.lora_{side}.weight"


def check_pairs(
    pairs: Mapping[Place, Pair], targets: Mapping[Place, Target] | None, base: BaseSpec, findings: Findings
) -> list[ModuleEntry]:
    """Every targeted module has A [rank, in] and B [out, rank] of the base's shape. targets None: not known."""
    entries = []
    wanted = pairs.keys() if targets is None else pairs.keys() | targets.keys()
    for place in sorted(wanted, key=lambda p: (p[0], MODULES.index(p[1]))):
        pair = pairs.get(place, {})
        for side in "AB":
            if side not in pair:
                findings.problem(Code.TENSOR_MISSING, tensor_name(place, side), "is missing")
        if targets is not None and place not in targets:
            for tensor in pair.values():
                findings.problem(Code.UNKNOWN_MODULE, tensor.name, "is of a module that target_modules leaves out")
            continue
        rank = _check_shapes(place, pair, targets[place].rank if targets else None, base, findings)
        if targets and rank and len(pair) == 2:
            out, in_ = base.shape(place[1])
            entries.append(ModuleEntry(*place, targets[place].rank, targets[place].scale, in_, out))
    return entries


def _check_shapes(place: Place, pair: Pair, rank: int | None, base: BaseSpec, findings: Findings) -> int | None:
    """The rank, when everything fits."""
    out, in_ = base.shape(place[1])
    fits = True
    for side, axis, width in (("A", 0, in_), ("B", 1, out)):
        if side not in pair:
            continue
        tensor = pair[side]
        if len(tensor.shape) != 2 or tensor.shape[1 - axis] != width:
            expected = f"[rank, {in_}]" if side == "A" else f"[{out}, rank]"
            findings.problem(Code.BASE_MISMATCH, tensor.name, f"is {list(tensor.shape)}; the base needs {expected}")
            fits = False
        elif rank is not None and tensor.shape[axis] != rank:
            findings.problem(Code.RANK_MISMATCH, tensor.name, f"has rank {tensor.shape[axis]}, configured is {rank}")
            fits = False
        rank = rank if rank is not None else (tensor.shape[axis] if len(tensor.shape) == 2 else None)
    return rank if fits else None


def one_dtype(tensors: Sequence[Tensor], findings: Findings) -> str | None:
    kinds = sorted({t.dtype for t in tensors})
    if len(kinds) > 1:
        findings.problem(Code.DTYPE_UNSUPPORTED, "", f"tensors mix {', '.join(kinds)}; one dtype is needed")
    return kinds[0] if len(kinds) == 1 else None


def check_values(file: TensorFile, tensors: Sequence[Tensor], limits: Limits, findings: Findings) -> None:
    """Finite, within the bound, and no B that is all zero. Reads each tensor once, in chunks."""
    for tensor in tensors:
        largest, faults = 0.0, set()
        for chunk in file.chunks(tensor, _CHUNK_BYTES):
            values = np.abs(to_float(np.frombuffer(chunk, NUMPY_DTYPES[tensor.dtype]), tensor.dtype))
            peak = float(values.max())
            if np.isfinite(peak):
                largest = max(largest, peak)
                continue
            faults |= {"NaN"} if np.isnan(values).any() else set()
            faults |= {"infinity"} if np.isinf(values).any() else set()
            largest = max(largest, float(values[np.isfinite(values)].max(initial=0.0)))
        if faults:
            findings.problem(Code.VALUE_OUT_OF_RANGE, tensor.name, f"holds {' and '.join(sorted(faults))}")
        if largest > _BF16_MAX:
            findings.problem(Code.VALUE_OUT_OF_RANGE, tensor.name, "holds a value that overflows bfloat16")
        elif largest > limits.max_abs_weight:
            what = f"holds a value of {largest:.3g}, more than {limits.max_abs_weight:g}"
            findings.problem(Code.VALUE_OUT_OF_RANGE, tensor.name, what)
        if largest == 0 and not faults and tensor.name.endswith("lora_B.weight"):
            findings.warning(Code.NO_EFFECT, tensor.name, "is all zero")


def to_float(raw: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """float32 of a raw array; bf16 comes as uint16."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):
        return raw.astype(np.float32)


def read_pair(file: TensorFile, pair: Pair) -> tuple[NDArray[Any], NDArray[Any]]:
    """A and B as raw arrays, true rank. Their shapes were checked before."""
    a, b = (
        np.frombuffer(file.read(t.start, t.end - t.start), NUMPY_DTYPES[t.dtype]).reshape(t.shape)
        for t in (pair["A"], pair["B"])
    )
    return a, b
