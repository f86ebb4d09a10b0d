"""Prompt lookup: the guess is what followed when the same tokens came before (Saxena 2023; REST, He et al. 2024).

Owns one index of n-grams per namespace, so that no tenant's or adapter's text is ever guessed for another, and a
bound on its memory. Pure over ints; knows no model. Deterministic: of several places the latest counts.
"""

from collections import OrderedDict
from collections.abc import Sequence

from tenantry.runtime.speculative.tree import DraftTree

SIZES = (5, 3, 2)  # tokens that must agree, longest first
KIND = "ngram"


class NgramIndex:
    """Texts of one namespace, whose adapter is `weights`. At `room` tokens the older half goes."""

    def __init__(self, room: int, weights: bytes | None = None) -> None:
        self.weights = weights
        self._room = room
        self._tokens: list[int] = []
        self._begin = 0  # of the newest text
        self._after: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, text: Sequence[int]) -> None:
        """Learn one more text."""
        text = text[-self._room // 2 :]
        if len(self._tokens) + len(text) > self._room:
            kept = self._tokens[-self._room // 2 :]
            self._tokens, self._after, self._begin = [], {}, 0
            self.extend(kept)
        self._begin = len(self._tokens)
        self.extend(text)

    def extend(self, more: Sequence[int]) -> None:
        """The newest text goes on."""
        known = len(self._tokens)
        self._tokens += more
        for end in range(known, len(self._tokens)):  # only what is followed by something
            for size in SIZES:
                if end - size >= self._begin:
                    self._after[tuple(self._tokens[end - size : end])] = end

    def find(self, text: Sequence[int], most: int) -> list[int]:
        """What followed the longest known ending of `text`; empty when it is new. What followed up to the very end of
        the index is taken to repeat: "ababab" goes on as it did."""
        for size in SIZES:
            at = self._after.get(tuple(text[-size:])) if size <= len(text) else None
            if at is not None:
                period = len(self._tokens) - at
                return [self._tokens[at + i % period] for i in range(most)]
        return []


class Lookup:
    """Guesses from a sequence's own text first, then from finished texts of its namespace.

    texts: most namespaces remembered, the least recently used goes first. room: tokens of each.
    """

    def __init__(self, namespaces: int = 256, room: int = 16384) -> None:
        self._shared: OrderedDict[bytes, NgramIndex] = OrderedDict()
        self._own: dict[int, NgramIndex] = {}
        self._namespaces = namespaces
        self._room = room

    def propose(self, sequence: int, namespace: bytes, tokens: Sequence[int], most: int) -> DraftTree | None:
        """At most `most` guesses after `tokens`, a sequence's whole text so far; None when nothing is known."""
        index = self._own.get(sequence)
        if index is None:
            index = self._own[sequence] = NgramIndex(1 << 62)
        index.extend(tokens[len(index) :])
        found = index.find(tokens, most)
        if not found and namespace in self._shared:
            self._shared.move_to_end(namespace)
            found = self._shared[namespace].find(tokens, most)
        return DraftTree.chain(found, kind=KIND) if found else None

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
