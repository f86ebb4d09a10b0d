"""What one run of `tenantry train-drafter` is asked to do: frozen, JSON between the command and its process.

Owns the numbers and their bounds. It must not know how training is done.
"""

from pathlib import Path
from typing import Literal

import msgspec

from tenantry.runtime.errors import InvalidRequest

Kind = Literal["medusa", "eagle", "clover", "lora"]


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """kind: what is trained. model: the base's directory. adapters: PEFT folders whose texts are learned as well, or
    alone. drafter: the head or draft model that a lora is for. out: where the result goes (of a lora: where its work
    lies; it goes beside its drafter), and checkpoints.

    levels: tokens guessed in a row that are trained for. intermediate: of the MLP in a head's layer, 0 for the
    target's. own_heads: medusa's way to the vocabulary is its own. rank: of a lora. tokens: most of a
    continuation. held_out: share of the prompts that are only evaluated. epochs: passes over the others. batch: texts
    in a step. rate: AdamW's peak. dtype, kv_dtype: as the target will be served, for its features are learned.
    """

    kind: Kind
    model: Path
    prompts: Path
    out: Path
    adapters: tuple[Path, ...] = ()
    drafter: Path | None = None
    levels: int = 4
    intermediate: int = 0
    own_heads: bool = False
    rank: int = 16
    tokens: int = 128
    held_out: float = 0.05
    epochs: int = 4
    batch: int = 16
    rate: float = 1e-3
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    dtype: str = "bfloat16"
    kv_dtype: str = "int8"

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, float, float], ...] = (
            ("levels", 1, 8), ("tokens", 2, 1 << 16), ("held_out", 0.0, 0.5), ("epochs", 1, 1000), ("batch", 1, 4096),
            ("rank", 1, 512), ("rate", 1e-8, 1.0), ("intermediate", 0, 1 << 20),
        )  # fmt: skip
        for name, least, most in bounds:
            if not least <= getattr(self, name) <= most:
                raise InvalidRequest(name, f"from {least:g} to {most:g}")
        if (self.kind == "lora") != (self.drafter is not None):
            raise InvalidRequest("drafter", "a lora is for a head or a draft model, and nothing else is")
        if self.kind == "lora" and len(self.adapters) != 1:
            raise InvalidRequest("adapter", "a lora is for one adapter")
        if len({path.name for path in self.adapters}) != len(self.adapters):
            raise InvalidRequest("adapter", "two folders have the same name")
