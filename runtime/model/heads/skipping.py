"""Self-speculation (Zhang et al. 2024, Draft & Verify): the target itself guesses, with some of its layers left out.

Owns which layers. No weights and no pages of its own: guesses leave keys and values where the target will write its
own when it judges them, and of the layers that stay everything before is the target's. Adapters stay on.
"""

from dataclasses import replace

import torch

from tenantry.runtime.model.batch import Batch, row_lengths
from tenantry.runtime.model.decoder import Decoder
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.heads.expansion import Expansion
from tenantry.runtime.model.heads.head import Frontier, Level, Text
from tenantry.runtime.plan import Row

KIND = "self"
DEEPEST = 8


def layers_without(layers: int, skipped: int) -> tuple[int, ...]:
    """The layers that stay: the first and the last always, those left out evenly between. Raises ModelUnsupported."""
    between = layers - 2
    if not 1 <= skipped <= between:
        raise ModelUnsupported(
            "speculate", f"from 1 to {max(between, 0)} of the model's {layers} layers can be left out"
        )
    out = {1 + (2 * i + 1) * between // (2 * skipped) for i in range(skipped)}
    return tuple(index for index in range(layers) if index not in out)


class SkippedLayers:
    """decoder: of the target's weights and pages, with `kept` layers."""

    kind = KIND
    taps: tuple[int, ...] = ()
    deepest = DEEPEST
    pool = None
    chain = None

    def __init__(self, decoder: Decoder, page_size: int) -> None:
        self._decoder, self._page_size = decoder, page_size
        self.table = decoder.table

    def follow(self, text: Text) -> Level:
        self._expansion = Expansion(text, ahead=1)
        roots = [self._expansion.root(owner) for owner in range(len(text.guessing))]
        return self._level(roots, [text.slots[r] for r in text.guessing], list(range(len(roots))))

    def expand(self, text: Text, frontier: Frontier) -> Level:
        self._expansion.add(frontier)
        work = self._expansion.work(frontier)
        return self._level(work.rows, [text.slots[text.guessing[owner]] for owner in work.owners], work.wanted)

    def _level(self, rows: list[Row], slots: list[int | None], wanted: list[int]) -> Level:
        if not rows:
            return Level(torch.zeros(0, 0), torch.zeros(0, self._decoder.config.vocab))
        adapted = any(slot is not None for slot in slots)
        lora = self.table.plan(slots, row_lengths(rows)) if adapted else None
        device = self._decoder.ops.device
        batch = Batch.build(rows, self._page_size, lora, device)
        output = self._decoder.forward(replace(batch, last=torch.tensor(wanted, device=device)))
        return Level(output.taps[wanted], output.logits)
