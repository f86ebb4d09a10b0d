"""One step's rows under one token budget.

Owns the cutting of chunks and the making of rows. It must not know who comes first, nor where pages come from.
"""

from tenantry.runtime.plan import Draw, Row
from tenantry.runtime.scheduler.request import Sequence


class Batch:
    """left: tokens that this step may still compute."""

    def __init__(self, budget: int, page_size: int) -> None:
        self.left = budget
        self.rows: list[Row] = []
        self._page_size = page_size

    @property
    def open(self) -> bool:
        """Whether at least one page of any prompt still fits."""
        return self.left >= self._page_size

    def add(self, sequence: Sequence) -> None:
        """The next chunk of a sequence: all that is left of it, or what fits, cut at a page boundary (may be none).

        A row that reaches the last token draws the next one.
        """
        lease = sequence.lease
        assert lease is not None
        tokens, start = sequence.tokens, sequence.computed
        total = len(tokens)
        end = total
        if total - start > self.left:
            end = start + self.left
            end -= end % self._page_size
            if end <= start:
                return
        request = sequence.request
        draw = None
        if end == total:
            sampling, prompt = request.submit.sampling, request.prompt_length
            forbidden = request.forbidden if total - prompt < sampling.min_tokens else ()
            draw = Draw(sampling, sequence.choice, total, prompt, tokens, forbidden)
        self.left -= end - start
        self.rows.append(Row(sequence.id, tokens[start:end], start, lease.pages, request.submit.adapter, draw))
