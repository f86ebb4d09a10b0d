"""What the target computed of one sequence and its head did not: features, and the tokens that follow them.

Owns pieces of the steps' hidden states, which stay where they are until somebody asks for them, since most are asked
for by nobody. It must not know heads or guesses.
"""

from collections import deque
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor


class Piece(msgspec.Struct, frozen=True):
    """Positions in a row: of `features`, fp32 [T, taps * hidden], `own` lines from `first` on, then lines `nodes`."""

    features: Tensor
    first: int
    own: int
    nodes: Sequence[int] = ()

    @property
    def count(self) -> int:
        return self.own + len(self.nodes)

    def without(self, count: int) -> "Piece":
        """All but the first `count` positions."""
        own = min(count, self.own)
        return Piece(self.features, self.first + own, self.own - own, self.nodes[count - own :])

    def read(self) -> Tensor:
        own = self.features[self.first : self.first + self.own]
        return torch.cat((own, self.features[list(self.nodes)])) if self.nodes else own

    def alone(self) -> "Piece":
        """The same without the step that it is of."""
        return Piece(self.read().clone(), 0, self.count)


class Waiting:
    """Positions start .. end-1. tokens: what follows them, as far as it is known. begin: where the head's view of the
    text begins. followed: it has computed its view up to here; -1 for nothing."""

    __slots__ = ("_pieces", "begin", "end", "followed", "start", "tokens")

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.begin, self.followed = 0, -1
        self.tokens: list[int] = []
        self._pieces: deque[Piece] = deque()

    @property
    def known(self) -> int:
        """Positions whose next token is known."""
        return min(self.end - self.start, len(self.tokens))

    def add(self, piece: Piece, tokens: Sequence[int]) -> None:
        self._pieces.append(piece)
        self.end += piece.count
        self.tokens += tokens

    def skip(self, count: int) -> None:
        """The first `count` positions wait no longer, or all of them where they are fewer; none where that is < 1."""
        count = min(count, self.end - self.start)
        if count < 1:
            return
        self.start += count
        del self.tokens[:count]
        while count > 0:
            piece = self._pieces.popleft()
            if piece.count > count:
                self._pieces.appendleft(piece.without(count))
            count -= piece.count

    def take(self, count: int) -> tuple[Tensor, list[int]]:
        """The first `count` positions' features and next tokens, which wait no longer."""
        features, tokens = torch.cat([piece.read() for piece in self._pieces])[:count], self.tokens[:count]
        self.skip(count)
        return features, tokens

    def detach(self) -> None:
        """What came last need not keep its whole step's features alive."""
        if self._pieces:
            self._pieces.append(self._pieces.pop().alone())
