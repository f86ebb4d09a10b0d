"""Prompt lookup: the guess is what followed when the same tokens came before (Saxena 2023; REST, He et al. 2024).

Owns one index of n-grams per namespace, so that no tenant's or adapter's text is ever guessed for another, and a
bound on its memory. How far back the two places agree says how much to expect (SuffixDecoding, Oliaro et al. 2024).
Pure over ints; knows no model. Deterministic: of several places the latest counts.
"""

from collections import OrderedDict
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from tenantry.runtime.speculative.tree import DraftTree

SIZES = (5, 3, 2)  # tokens that must agree, longest first
FARTHEST = 40  # tokens looked back to see how many agree
KIND = "ngram"
MARKING = 3  # tokens before a token from which its mark is taken


class Mark(IntEnum):
    """Of a token in a text: whether a lookup had found it when it was written. In what is alike from text to text but
    for a name or a number, these are what CHANGED."""

    NEW = 0
    SAME = 1
    CHANGED = 2


class Match(NamedTuple):
    """known[at]: what followed the last time. marks: of every token known. agreed: how many tokens before that are
    those at the text's end."""

    known: Sequence[int]
    marks: Sequence[int]
    at: int
    agreed: int

    def chain(self, most: int) -> DraftTree:
        """What followed up to the very end of what is known is taken to repeat: "ababab" goes on as it did."""
        return DraftTree.chain(self._repeated(self.known, most), kind=KIND)

    def chain_marks(self, most: int) -> list[int]:
        """Of the chain's guesses."""
        return self._repeated(self.marks, most)

    def _repeated(self, of: Sequence[int], most: int) -> list[int]:
        found = list(of[self.at : self.at + most])
        period = len(found)
        while len(found) < most:
            found.append(found[len(found) - period])
        return found


class NgramIndex:
    """Texts of one namespace, whose adapter is `weights`. At `room` tokens the older half goes."""

    def __init__(self, room: int, weights: bytes | None = None) -> None:
        self.weights = weights
        self._room = room
        self._tokens: list[int] = []
        self._marks = bytearray()
        self._begin = 0  # of the newest text
        self._after: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, text: Sequence[int]) -> None:
        """Learn one more text."""
        text = text[-self._room // 2 :]
        if len(self._tokens) + len(text) > self._room:
            kept = self._tokens[-self._room // 2 :]
            self._tokens, self._marks, self._after, self._begin = [], bytearray(), {}, 0
            self.extend(kept)
        self._begin = len(self._tokens)
        self.extend(text)

    def extend(self, more: Sequence[int]) -> None:
        """The newest text goes on."""
        tokens, after, known = self._tokens, self._after, len(self._tokens)
        tokens += more
        self._marks += bytes(len(more))
        for end in range(known, len(tokens)):  # only what is followed by something
            for size in SIZES:
                if end - size >= self._begin:
                    gram = tuple(tokens[end - size : end])
                    if size == MARKING and gram in after:
                        self._marks[end] = Mark.SAME if tokens[after[gram]] == tokens[end] else Mark.CHANGED
                    after[gram] = end

    def find(self, text: Sequence[int]) -> Match | None:
        """Where the longest known ending of `text` was last followed by something; None when it is new."""
        for size in SIZES:
            at = self._after.get(tuple(text[-size:])) if size <= len(text) else None
            if at is not None:
                known, agreed, most = self._tokens, size, min(FARTHEST, at, len(text))
                while agreed < most and known[at - 1 - agreed] == text[-1 - agreed]:
                    agreed += 1
                return Match(known, self._marks, at, agreed)
        return None


class Lookup:
    """Guesses from a sequence's own text, or from finished texts of its namespace where those agree for longer.

    texts: most namespaces remembered, the least recently used goes first. room: tokens of each.
    """

    def __init__(self, namespaces: int = 256, room: int = 16384) -> None:
        self._shared: OrderedDict[bytes, NgramIndex] = OrderedDict()
        self._own: dict[int, NgramIndex] = {}
        self._namespaces = namespaces
        self._room = room

    def find(self, sequence: int, namespace: bytes, tokens: Sequence[int]) -> Match | None:
        """What may follow `tokens`, a sequence's whole text so far. To be used before anything else is told."""
        index = self._own.get(sequence)
        if index is None:
            index = self._own[sequence] = NgramIndex(1 << 62)
        index.extend(tokens[len(index) :])
        own = index.find(tokens)
        shared = self._shared.get(namespace)
        if shared is None or (own is not None and own.agreed > SIZES[0]):
            return own
        self._shared.move_to_end(namespace)
        other = shared.find(tokens)
        return other if other is not None and (own is None or other.agreed > own.agreed) else own

    def finish(self, sequence: int, namespace: bytes, tokens: Sequence[int], weights: bytes | None = None) -> None:
        """A sequence ended: its text is for its namespace now. weights: the adapter it was drawn with."""
        self._own.pop(sequence, None)
        index = self._shared.setdefault(namespace, NgramIndex(self._room, weights))
        self._shared.move_to_end(namespace)
        index.add(tokens)
        while len(self._shared) > self._namespaces:
            self._shared.popitem(last=False)

    def forget(self, weights: bytes) -> None:
        """Drop all texts that were drawn with an adapter."""
        for namespace in [name for name, index in self._shared.items() if index.weights == weights]:
            del self._shared[namespace]
