"""One step's rows under one token budget.

Owns the cutting of chunks and the making of rows. It must not know who comes first, nor where pages come from.
"""

from tenantry.runtime.plan import Draw, Row
from tenantry.runtime.scheduler.request import Sequence
from tenantry.runtime.speculative.speculator import NOTHING, Guess


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

    def add(self, sequence: Sequence, guess: Guess = NOTHING) -> None:
        """The next chunk of a sequence: all that is left of it, or what fits, cut at a page boundary (may be none).

        A row that reaches the last token draws the next one; only such a row may come with a guess, for which the
        caller has found pages and budget.
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
        if end < total:
            guess = NOTHING
        else:
            sampling, prompt = request.submit.sampling, request.prompt_length
            forbidden = request.forbidden if total - prompt < sampling.min_tokens else ()
            draw = Draw(sampling, sequence.choice, total, prompt, tokens, forbidden)
        draft = guess.draft
        self.left -= end - start + (len(draft.tokens) if draft is not None else 0)
        chunk, adapter = tokens[start:end], request.submit.adapter
        self.rows.append(Row(sequence.id, chunk, start, lease.pages, adapter, draw, draft, guess.ahead, guess.nodes))
