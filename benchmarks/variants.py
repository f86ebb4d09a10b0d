"""The ways our server is run in one benchmark: each a name, options of `tenantry serve`, and what it then stores.

A variant that this build refuses is reported as absent with the reason, never left out.
"""

import shlex
from dataclasses import dataclass

from benchmarks.floor import Stored

WEIGHT_BYTES = {"w8a16": 1.0, "w8a8": 1.0, "w4a16": 0.5}
ADAPTER_BYTES = {"int8": 1.0}


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """From "name=--option value ...". Raises ValueError without a name."""
        name, found, options = text.partition("=")
        if not name.strip() or not found:
            raise ValueError(f"variant: {text!r} is not 'name=options'")
        return cls(name.strip(), tuple(shlex.split(options)))

    @property
    def stored(self) -> Stored:
        """Bytes per value that a step must read. Without an option: bf16."""
        chosen = dict(zip(self.options, self.options[1:], strict=False))
        return Stored(
            WEIGHT_BYTES.get(chosen.get("--weights", ""), 2.0),
            ADAPTER_BYTES.get(chosen.get("--adapter-dtype", ""), 2.0),
        )


VARIANTS = (Variant("bf16"), Variant("int8", ("--weights", "w8a8", "--adapter-dtype", "int8")))
