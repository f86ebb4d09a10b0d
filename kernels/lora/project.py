"""A site's product and its adapters as one operation, so that a device may choose their order.

project(linear, x, layer, site, plan, table) -> linear(x) + B (factors * (A x)), [T, sum of slices] in x's dtype; rows
of the base model get linear(x). Arguments and errors as for apply_lora (reference.py).
"""

from collections.abc import Callable

from torch import Tensor

from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.quant.linear import Linear

Apply = Callable[[Tensor, Tensor, int, str, LoraPlan, LoraTable], None]
Project = Callable[[Linear, Tensor, int, str, LoraPlan, LoraTable], Tensor]


def in_turn(apply: Apply) -> Project:
    """The product first, then what adapters change of it."""

    def project(linear: Linear, x: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> Tensor:
        y = linear(x)
        apply(x, y, layer, site, plan, table)
        return y

    return project
