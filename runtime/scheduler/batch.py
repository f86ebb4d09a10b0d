"""One step's rows under one token budget.

Owns the cutting of chunks and the making of rows. It must not know who comes first, nor where pages come from.
"""

from tenantry.runtime.plan import Draw, Row
from tenantry.runtime.scheduler.pace import Allowance
from tenantry.runtime.scheduler.request import Sequence
from tenantry.runtime.speculative.speculator import NOTHING, Guess


class Batch:
    """left: tokens that this step may still compute. allowance: what prompts may take of them, if that is less."""

    def __init__(self, budget: int, page_size: int) -> None:
        self.left = budget
        self.allowance: Allowance | None = None
        self.rows: list[Row] = []
        self._page_size = page_size
        self._chunks = 0

    @property
    def open(self) -> bool:
        """Whether at least one page of any prompt still fits."""
        return self.room(0) >= self._page_size

    def room(self, start: int) -> int:
        """Tokens of a prompt, of which `start` are computed, that this step may take. The first one gets a page,
        whatever the allowance says: what runs goes on."""
        if self.allowance is None:
            return self.left
        return min(self.left, max(self.allowance.tokens(start), 0 if self._chunks else self._page_size))

    def add(self, sequence: Sequence, guess: Guess = NOTHING) -> int:
        """The next chunk of a sequence: all that is left of it, or what fits, cut at a page boundary (may be none).
        Returns how many tokens it has.

        A row that reaches the last token draws the next one; only such a row may come with a guess, for which the
        caller has found pages and budget.
        """
        lease = sequence.lease
        assert lease is not None
        tokens, start = sequence.tokens, sequence.computed
        total = end = len(tokens)
        if total - start > 1:
            room = self.room(start)
            if total - start > room:
                end = start + room
                end -= end % self._page_size
                if end <= start:
                    return 0
        elif not self.left or (self._chunks and self.allowance is not None and not self.allowance.takes_row(start)):
            return 0
        if self.allowance is not None:
            self._chunks += 1
            self.allowance.spend(start, end - start)
        request = sequence.request
        draw, draft, ahead, nodes = None, None, 0, 0
        if end == total:
            draft, ahead, nodes = guess.draft, guess.ahead, guess.nodes
            sampling, prompt = request.submit.sampling, request.prompt_length
            forbidden = request.forbidden if total - prompt < sampling.min_tokens else ()
            draw = Draw(sampling, sequence.choice, total, prompt, tokens, forbidden)
        self.left -= end - start + (len(draft.tokens) if draft is not None else 0)
        chunk, adapter = tokens[start:end], request.submit.adapter
        pages, follow = lease.pages, guess.follow
        self.rows.append(Row(sequence.id, chunk, start, pages, adapter, draw, draft, ahead, nodes, follow))
        return end - start
