"""Who guesses inside of the runner: told what each step computed and drew, asked for trees for the next one.

Owns the contract alone. A draft model (drafter.py) and heads on the target's hidden states are proposers; what
guesses from texts without a model is not, and lives in runtime/speculative.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.plan import Row, RowResult
from tenantry.runtime.speculative.tree import DraftTree


class Proposal(NamedTuple):
    """tree: guesses at what follows a row's tokens. q: fp32 [nodes + 1, vocab], the distributions that children of
    the root and of each node were drawn from, without replacement; None where guesses are a function of the text and
    of the target's own noise, as they mostly are."""

    tree: DraftTree
    q: Tensor | None = None


class Proposer(Protocol):
    """taps: hidden states of the target that it wants, as Decoder has them; () for none. pool: its own KV under the
    target's page ids, for which the runner copies pages whenever it copies the target's; None without any."""

    @property
    def taps(self) -> tuple[int, ...]: ...

    @property
    def pool(self) -> KvPool | None: ...

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """Once per step, after its verdicts; aligned with rows. taps: fp32 [T, len(self.taps) * hidden], the step's
        tokens in order, each row's own before the nodes of its draft (batch.row_lengths); None without taps.

        A row may be guessed `ahead` levels deep with `nodes` nodes, for which its pages have room after the tokens
        that were drawn. Accepted nodes are walk(row.draft, result.tokens[:result.accepted]).
        """
        ...
