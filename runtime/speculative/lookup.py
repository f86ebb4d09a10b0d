"""Prompt lookup: the guess is what followed when the same tokens came before (Saxena 2023; REST, He et al. 2024).

Owns one index of n-grams per namespace, so that no tenant's or adapter's text is ever guessed for another, and a
bound on its memory. Pure over ints; knows no model. Deterministic: of several places the latest counts.
"""

from collections import OrderedDict
from collections.abc import Sequence

from tenantry.runtime.speculative.tree import DraftTree

LONGEST, SHORTEST = 5, 2  # tokens that must agree
KIND = "lookup"


class NgramIndex:
    """Texts of one namespace. tokens grows by whole texts; `room` bounds it: at the limit the older half goes."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, text: Sequence[int]) -> None:
        """Learn a text, or the continuation of the one just learnt when it overlaps by LONGEST tokens."""
        text = list(text[-self._room // 2 :])
        if len(self._tokens) + len(text) > self._room:
            kept = self._tokens[-self._room // 2 :]
            self._tokens, self._after = [], {}
            self._learn(kept)
        self._learn(text)

    def find(self, text: Sequence[int], most: int) -> list[int]:
        """What followed the longest known ending of `text`; empty when it is new."""
        for size in range(min(LONGEST, len(text)), SHORTEST - 1, -1):
            at = self._after.get(tuple(text[-size:]))
            if at is not None:
                return self._tokens[at : at + most]
        return []

    def _learn(self, text: Sequence[int]) -> None:
        first = len(self._tokens)
        self._tokens += text
        for end in range(first + SHORTEST, len(self._tokens)):
            for size in range(SHORTEST, min(LONGEST, end - first) + 1):
                self._after[tuple(self._tokens[end - size : end])] = end


class Lookup:
    """Guesses from a sequence's own text first, then from finished texts of its namespace.

    texts: most namespaces remembered, the least recently used goes first. room: tokens of each.
    """

    def __init__(self, namespaces: int = 256, room: int = 16384) -> None:
        self._shared: OrderedDict[bytes, NgramIndex] = OrderedDict()
        self._own: dict[int, tuple[NgramIndex, int]] = {}
        self._namespaces = namespaces
        self._room = room

    def propose(self, sequence: int, namespace: bytes, tokens: Sequence[int], most: int) -> DraftTree | None:
        """At most `most` guesses after `tokens`, a sequence's whole text so far; None when nothing is known."""
        index, seen = self._own.get(sequence, (NgramIndex(1 << 62), 0))
        if len(tokens) < seen:  # computed again after it was given up
            index, seen = NgramIndex(1 << 62), 0
        index.add(tokens[max(0, seen - LONGEST) :])
        self._own[sequence] = (index, len(tokens))
        found = index.find(tokens, most)
        if not found and namespace in self._shared:
            self._shared.move_to_end(namespace)
            found = self._shared[namespace].find(tokens, most)
        return DraftTree.chain(found, kind=KIND) if found else None

    def finish(self, sequence: int, namespace: bytes, tokens: Sequence[int]) -> None:
        """A sequence ended: its text is for its namespace now."""
        self._own.pop(sequence, None)
        index = self._shared.setdefault(namespace, NgramIndex(self._room))
        self._shared.move_to_end(namespace)
        index.add(tokens)
        while len(self._shared) > self._namespaces:
            self._shared.popitem(last=False)

    def forget(self, namespace: bytes) -> None:
        """Drop a namespace's texts, with its adapter."""
        self._shared.pop(namespace, None)
