"""From what `--speculate` says to the proposer of one runner.

Owns the choice alone; each kind reads its own files.
"""

import torch

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.ops import Ops
from tenantry.runtime.model import drafter
from tenantry.runtime.model.drafter import Drafter
from tenantry.runtime.model.heads import eagle, medusa
from tenantry.runtime.model.heads.clover import Clover
from tenantry.runtime.model.heads.eagle import Eagle
from tenantry.runtime.model.heads.head import Target
from tenantry.runtime.model.heads.medusa import Medusa
from tenantry.runtime.model.heads.proposal import HeadProposer
from tenantry.runtime.model.proposer import Proposer
from tenantry.runtime.model.weights import Progress
from tenantry.runtime.speculative.options import Speculation


def make_proposer(
    asked: Speculation,
    target: Target,
    ops: Ops,
    layout: PageLayout,
    pages: int,
    dtype: torch.dtype,
    positions: int,
    progress: Progress | None = None,
) -> Proposer | None:
    """layout, pages: of the target's pool. positions: how many the rotary tables cover. None where nothing of the
    runner's own guesses. Raises ModelError for files that do not fit the target."""
    directory = asked.directory
    if directory is None:
        return None
    if asked.model == drafter.KIND:
        return Drafter(directory, target.config, ops, layout, pages, dtype, positions, progress)
    if asked.model == medusa.KIND:
        return HeadProposer(Medusa(directory, target, ops, dtype))
    kind = Eagle if asked.model == eagle.KIND else Clover
    return HeadProposer(kind(directory, target, ops, layout, pages, dtype, positions))
