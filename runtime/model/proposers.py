"""From what `--speculate` says to the proposer of one runner.

Owns the choice alone; each kind reads its own files.
"""

import torch

from tenantry.kernels.attention.layout import PageLayout
from tenantry.runtime.model import drafter
from tenantry.runtime.model.decoder import Decoder
from tenantry.runtime.model.drafter import Drafter
from tenantry.runtime.model.heads import eagle, medusa, skipping
from tenantry.runtime.model.heads.adapted import HeadAdapters
from tenantry.runtime.model.heads.clover import Clover
from tenantry.runtime.model.heads.eagle import Eagle
from tenantry.runtime.model.heads.head import Target
from tenantry.runtime.model.heads.medusa import Medusa
from tenantry.runtime.model.heads.proposal import HeadProposer
from tenantry.runtime.model.heads.skipping import SkippedLayers, layers_without
from tenantry.runtime.model.lora import Adapters
from tenantry.runtime.model.proposer import Proposer
from tenantry.runtime.model.weights import Progress
from tenantry.runtime.speculative.options import Speculation
from tenantry.runtime.speculative.verify import Verify


def make_proposer(
    asked: Speculation,
    target: Decoder,
    adapters: Adapters,
    layout: PageLayout,
    dtype: torch.dtype,
    positions: int,
    progress: Progress | None = None,
    verify: Verify = "sample",
) -> Proposer | None:
    """layout: of the target's pages. positions: how many the rotary tables cover. verify: how guesses are judged.
    None where nothing of the runner's own guesses. Raises ModelError for files that do not fit the target."""
    shared, ops, pages = Target(target.config, target.weights), target.ops, len(target.pages[0].k)
    if asked.model == skipping.KIND:
        kept = layers_without(target.config.layers, asked.skipped or max(1, target.config.layers // 3))
        part = Decoder(
            target.config, target.weights, ops, target.pages, target.table, positions, target.activation, kept=kept
        )
        return HeadProposer(SkippedLayers(part, layout.page_size), adapters.slots)
    directory = asked.directory
    if directory is None:
        return None
    if asked.model == drafter.KIND:
        return Drafter(directory, target.config, ops, layout, pages, dtype, positions, progress, verify)
    if asked.model == medusa.KIND:
        return HeadProposer(Medusa(directory, shared, ops, dtype))
    kind = Eagle if asked.model == eagle.KIND else Clover
    head = kind(directory, shared, ops, layout, pages, dtype, positions)
    if head.table is None:
        return HeadProposer(head)
    return HeadProposer(head, HeadAdapters(directory, head.table, head.pool).slots, fitted=True)
