"""A safetensors file's header, checked beyond what the library checks, and bounded reads of its tensors.

The library accepts duplicate names, zero-size dimensions, any name and a header of 100 MB; this does not. Format:
https://github.com/huggingface/safetensors#format. Owns the bytes' arrangement; it must not know LoRA.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenantry.adapters.errors import Code, Findings
from tenantry.adapters.manifest import DTYPE_BYTES, Limits
from tenantry.adapters.strict_json import InvalidJson, parse_object

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}")
_MAX_DIMENSION = 1 << 40
_CODE_CARRYING = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x1f\x8b", b"\x7fELF", b"GGUF")


@dataclass(frozen=True, slots=True)
class Tensor:
    """start and end are byte positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class TensorFile:
    """Positioned reads from an open file descriptor that never leave [0, size)."""

    def __init__(self, handle: int, size: int) -> None:
        self._handle = handle
        self.size = size

    def read(self, start: int, count: int) -> bytes:
        """Exactly count bytes. Raises EOFError when the file is shorter than it was, ValueError outside of it."""
        if start < 0 or count < 0 or start + count > self.size:
            raise ValueError("read outside of the file")
        parts = []
        while count:
            part = os.pread(self._handle, count, start)
            if not part:
                raise EOFError("the file became shorter while it was read")
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, tensor: Tensor, size: int) -> Iterator[bytes]:
        for start in range(tensor.start, tensor.end, size):
            yield self.read(start, min(size, tensor.end - start))


def read_header(file: TensorFile, limits: Limits, findings: Findings) -> list[Tensor]:
    """Every tensor whose entry is sound, in file order. All that is wrong goes to findings."""
    name = "adapter_model.safetensors"
    if file.size > limits.max_bytes:
        findings.problem(Code.TOO_LARGE, name, f"more than {limits.max_bytes} bytes")
        return []
    head = file.read(0, min(8, file.size))
    if head.startswith(_CODE_CARRYING):
        findings.problem(Code.FORMAT_NOT_ALLOWED, name, "holds another format under this name")
        return []
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= min(limits.max_header_bytes, file.size - 8):
        most = limits.max_header_bytes
        findings.problem(Code.SAFETENSORS_HEADER, name, f"the header's length must be 2 to {most}, within the file")
        return []
    raw = file.read(8, length)
    try:
        if raw[:1] != b"{":
            raise InvalidJson("does not begin with an object")
        header = parse_object(raw)
    except InvalidJson as error:
        findings.problem(Code.SAFETENSORS_HEADER, name, f"the header {error}")
        return []
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        findings.problem(Code.SAFETENSORS_HEADER, "__metadata__", "must map strings to strings")
    if len(header) > limits.max_tensors:
        findings.problem(Code.SAFETENSORS_HEADER, name, f"more than {limits.max_tensors} tensors")
        return []
    if not header:
        findings.problem(Code.SAFETENSORS_HEADER, name, "holds no tensor")
    data = 8 + length
    found = [_tensor(key, entry, data, file.size, findings) for key, entry in header.items()]
    tensors = sorted((t for t in found if t is not None), key=lambda t: (t.start, t.end))
    if len(tensors) == len(header):
        _check_tiling(tensors, data, file.size, findings)
    return tensors


def _tensor(name: str, entry: Any, data: int, size: int, findings: Findings) -> Tensor | None:
    def wrong(message: str, code: Code = Code.SAFETENSORS_HEADER) -> Tensor | None:
        findings.problem(code, name, message)
        return None

    if not _NAME.fullmatch(name):
        return wrong("a tensor's name is 1 to 256 letters, digits, dots, dashes and underscores")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        return wrong("an entry holds exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        return wrong(f"dtype must be one of {', '.join(DTYPE_BYTES)}", Code.DTYPE_UNSUPPORTED)
    if not _sizes(shape, 1) or not 1 <= len(shape) <= 8:
        return wrong("shape must be 1 to 8 positive integers")
    if not _sizes(offsets, 0) or len(offsets) != 2:
        return wrong("data_offsets must be two integers")
    begin, end = offsets
    if not begin <= end <= size - data:
        return wrong("data_offsets leave the file, or end before they begin")
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        return wrong("shape and dtype do not make the bytes that data_offsets span")
    return Tensor(name, dtype, tuple(shape), data + begin, data + end)


def _sizes(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(type(n) is int and least <= n < _MAX_DIMENSION for n in value)


def _check_tiling(tensors: list[Tensor], data: int, size: int, findings: Findings) -> None:
    at = data
    for tensor in tensors:
        if tensor.start != at:
            kind = "overlaps the tensor before it" if tensor.start < at else "leaves a hole before it"
            findings.problem(Code.SAFETENSORS_HEADER, tensor.name, kind)
        at = max(at, tensor.end)
    if at != size:
        findings.problem(Code.SAFETENSORS_HEADER, "adapter_model.safetensors", "bytes follow the last tensor")
