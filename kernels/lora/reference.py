"""Mixed-adapter LoRA in plain torch: the oracle, one adapter and one slice at a time, fp32 arithmetic."""

from torch import Tensor

from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable


def apply_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """Add each row's adapter to a site's output, in place: y += B (factors * (A x)).

    x: [T, in] the site's input. y: [T, sum of slices] its output. layer, site: which weights. Rows of the base
    model are not read and not written. Raises RuntimeError for a plan older than the table.
    """
    table.require(plan)
    for slot, first, past in plan.runs:
        tokens = plan.tokens[first:past]
        rows = x[tokens].float()
        column = 0
        for part, out in enumerate(table.sites[site].slices):
            weights = table.slice_weights(slot, layer, site, part)
            if weights is not None:
                bridge = rows @ weights.a.float().T * weights.factors
                delta = bridge @ weights.b.float().T
                y[tokens, column : column + out] += delta.to(y.dtype)
            column += out
