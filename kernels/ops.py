"""The door of this library: one frozen table of operations per device, chosen explicitly.

Tensors in, tensors out; no environment, no configuration objects, no probing at import.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tenantry.kernels.attention import reference as reference_attention
from tenantry.kernels.attention.layout import AttentionPlan, LayerPages
from tenantry.kernels.lora import reference as reference_lora
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.quant.linear import Linear, prepare_reference
from tenantry.kernels.sampling import reference as reference_sampling
from tenantry.kernels.sampling.spec import DrawSpec, SampleResult


@dataclass(frozen=True, slots=True)
class Ops:
    """Operations of one device. On CPU activations are fp32 whatever the weights' dtype.

    write_kv(k, v, pages, slots): see attention/reference.py, as for attention(q, pages, plan, scale).
    apply_lora(x, y, layer, site, plan, table): see lora/reference.py.
    prepare_linear(weight, bias): see quant/linear.py; called once per layer at load.
    sample(logits, specs): see sampling/reference.py.
    """

    name: str
    device: str
    write_kv: Callable[[Tensor, Tensor, LayerPages, Tensor], None]
    attention: Callable[[Tensor, LayerPages, AttentionPlan, float], Tensor]
    apply_lora: Callable[[Tensor, Tensor, int, str, LoraPlan, LoraTable], None]
    prepare_linear: Callable[[Tensor, Tensor | None], Linear]
    sample: Callable[[Tensor, Sequence[DrawSpec]], SampleResult]


REFERENCE = Ops(
    name="reference",
    device="cpu",
    write_kv=reference_attention.write_kv,
    attention=reference_attention.attention,
    apply_lora=reference_lora.apply_lora,
    prepare_linear=prepare_reference,
    sample=reference_sampling.sample,
)


def select_ops(device: str) -> Ops:
    """device: "cpu" or "reference". Raises ValueError for any other."""
    if device in ("cpu", "reference"):
        return REFERENCE
    raise ValueError(f"device: no kernels for {device!r}")
