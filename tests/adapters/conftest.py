"""A tiny base model's shape, and uploads made by hand for it, so that any byte of them can be bent."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenantry.adapters.manifest import PARENT, BaseSpec

BASE = BaseSpec(
    family="llama", layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=8, vocab=64, digest=b"b" * 32
)
KINDS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def name_of(layer: int, module: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{PARENT[module]}.{module}.lora_{side}.weight"


@dataclass
class Upload:
    """An adapter before it is written: config fields, tensors as (dtype, shape, bytes), and extra files."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], bytes]]
    metadata: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    raw_config: bytes | None = None
    raw_weights: bytes | None = None

    def set(self, name: str, values: np.ndarray, dtype: str = "F32") -> None:
        self.tensors[name] = (dtype, list(values.shape), np.ascontiguousarray(values).tobytes())

    def header(self) -> dict[str, Any]:
        entries, at = {}, 0
        for name, (dtype, shape, raw) in self.tensors.items():
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
            at += len(raw)
        return entries if self.metadata is None else {"__metadata__": self.metadata} | entries

    def data(self) -> bytes:
        return b"".join(raw for _, _, raw in self.tensors.values())

    def weights(self) -> bytes:
        return self.raw_weights if self.raw_weights is not None else framed(self.header(), self.data())

    def write(self, directory: Path) -> Path:
        directory.mkdir(exist_ok=True)
        config = self.raw_config if self.raw_config is not None else json.dumps(self.config).encode()
        everything = {"adapter_config.json": config, "adapter_model.safetensors": self.weights()} | self.files
        for name, content in everything.items():
            (directory / name).write_bytes(content)
        return directory


def framed(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def make_upload(modules=("q_proj", "down_proj"), rank=4, base=BASE, seed=0, **config) -> Upload:
    rng = np.random.default_rng(seed)
    upload = Upload({"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": list(modules)} | config, {})
    for layer in range(base.layers):
        for module in modules:
            out, in_ = base.shape(module)
            upload.set(name_of(layer, module, "A"), rng.standard_normal((rank, in_), np.float32))
            upload.set(name_of(layer, module, "B"), rng.standard_normal((out, rank), np.float32))
    return upload


@pytest.fixture
def upload() -> Upload:
    return make_upload()
