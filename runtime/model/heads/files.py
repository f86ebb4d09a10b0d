"""A head's directory: its config.json, read closed, and its safetensors, each tensor asked for by name and shape.

Owns where heads' files lie and how they are opened. It must not know what a head computes. Layouts are those that the
published code of each kind saves, in safetensors; a pickle is refused by name, never opened.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tenantry.runtime.model.errors import ModelUnsupported, WeightsInvalid
from tenantry.runtime.model.fields import Fields

CONFIG = "config.json"


def read_fields(directory: Path) -> Fields:
    """The fields of a head's config.json. Raises ModelUnsupported."""
    path = directory / CONFIG
    try:
        value = json.loads(path.read_bytes())
    except OSError:
        raise ModelUnsupported(CONFIG, f"{directory.name} has none: it is no folder of a trained head") from None
    except (ValueError, RecursionError):
        raise ModelUnsupported(CONFIG, "is not JSON") from None
    if not isinstance(value, dict):
        raise ModelUnsupported(CONFIG, "expected an object")
    return Fields(value)


class HeadTensors:
    """All tensors of a directory's safetensors files, read into memory. take() hands each out once; close() refuses
    what nobody asked for."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        """Raises WeightsInvalid naming the files at fault."""
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        paths = sorted(directory.glob("*.safetensors"))
        if not paths:
            pickles = sorted(p.name for p in directory.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
            raise WeightsInvalid("only safetensors are read, and there are none", pickles or [directory.name])
        for path in paths:
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    for name in file.keys():  # noqa: SIM118 - not a mapping
                        self._tensors[name] = file.get_tensor(name)
            except (SafetensorError, OSError):
                raise WeightsInvalid("cannot be read as safetensors", [path.name]) from None

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises WeightsInvalid if there is no such tensor."""
        if name not in self._tensors:
            raise WeightsInvalid("tensors are missing", [name])
        return tuple(self._tensors[name].shape)

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A copy on the device. Raises WeightsInvalid for a tensor that is missing or of another shape."""
        if self.shape(name) != shape:
            raise WeightsInvalid(f"shape {self.shape(name)} is not {shape}", [name])
        tensor = self._tensors.pop(name)
        if tensor.is_floating_point() != dtype.is_floating_point:
            raise WeightsInvalid(f"{tensor.dtype} is not expected", [name])
        return tensor.to(self._device, dtype, copy=True)

    def ignore(self, names: Iterable[str]) -> None:
        """Tensors that say nothing new."""
        for name in names:
            self._tensors.pop(name, None)

    def close(self) -> None:
        """Raises WeightsInvalid for tensors that were not asked for."""
        if self._tensors:
            raise WeightsInvalid("tensors are not expected", list(self._tensors))


def write_config(directory: Path, config: Mapping[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
