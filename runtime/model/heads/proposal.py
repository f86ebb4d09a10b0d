"""Heads as a proposer: what the target computed goes in, trees of guesses come out.

Owns which positions a head has not computed yet, and the walk from level to level. It must not know how a head
computes (head.py), nor which guesses are kept (speculative/growth.py). A position is computed once its next token is
known; while nobody asks for guesses, features wait and are computed several at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from tenantry.runtime.model.batch import row_lengths
from tenantry.runtime.model.candidates import candidates
from tenantry.runtime.model.heads.head import Frontier, Head, Level, Text
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import penalises, spec_of
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.growth import Growth, Limits
from tenantry.runtime.speculative.tree import ROOT, walk

REMEMBERED = 1024  # sequences whose features wait; others go on from what they compute next
MOST_WAITING = 32  # positions of one sequence
Slots = Callable[[Sequence[bytes | None]], list[int | None]]


@dataclass(slots=True)
class _Waiting:
    """Positions of one sequence, from `start` on, that the target has computed and the head has not. features: fp32
    [1, taps * hidden] or more each. tokens: what follows them, as far as it is known."""

    start: int
    features: list[Tensor]
    tokens: list[int]

    @property
    def end(self) -> int:
        return self.start + sum(map(len, self.features))

    @property
    def known(self) -> int:
        """Positions whose next token is known."""
        return min(self.end - self.start, len(self.tokens))

    def take(self, count: int) -> tuple[Tensor, list[int]]:
        """The first `count` positions' features and next tokens, which wait no longer."""
        features, tokens = torch.cat(self.features), self.tokens[:count]
        self.start, self.features, self.tokens = self.start + count, [features[count:].clone()], self.tokens[count:]
        return features[:count], tokens


class HeadProposer:
    """A Proposer. slots: where the head's table holds what it has for each of these adapters, None for nothing."""

    def __init__(self, head: Head, slots: Slots | None = None) -> None:
        self.head, self._slots = head, slots or _no_slots
        self.taps, self.pool = head.taps, head.pool
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """See Proposer."""
        if taps is None:
            raise ValueError("heads read the target's hidden states, and this step has none")
        found: list[Proposal | None] = [None] * len(rows)
        following: list[tuple[Row, Tensor]] = []
        asking: list[tuple[int, int]] = []  # index into rows, and into following
        parts = torch.split(taps, row_lengths(rows))
        for i, (row, result, part) in enumerate(zip(rows, results, parts, strict=True)):
            if result.fault is not None:
                self._waiting.pop(row.sequence, None)
                continue
            waiting = self._told(row, result, part)
            guess = row.ahead > 0 and bool(result.tokens)
            if guess or self._must_follow(row, waiting):
                start, (features, tokens) = waiting.start, waiting.take(waiting.known)
                if tokens:
                    if guess:
                        asking.append((i, len(following)))
                    following.append((Row(row.sequence, tokens, start, row.pages, row.adapter, None), features))
        while len(self._waiting) > REMEMBERED:
            self._waiting.popitem(last=False)
        if following:
            text = Text(
                [row for row, _ in following],
                torch.cat([features for _, features in following]),
                [at for _, at in asking],
                self._slots([row.adapter for row, _ in following]),
            )
            trees = [_Tree(self.head, rows[i], results[i]) for i, _ in asking]
            self._guess(text, trees)
            for (i, _), tree in zip(asking, trees, strict=True):
                found[i] = tree.proposal(self.head.kind)
        return found

    def _told(self, row: Row, result: RowResult, features: Tensor) -> _Waiting:
        """What waits of a sequence, now that the target has computed this row."""
        own = len(row.tokens)
        part = features[:own]
        if row.draft is not None and result.accepted:
            nodes = walk(row.draft, result.tokens[: result.accepted])
            part = torch.cat((part, features[[own + node for node in nodes]]))
        waiting = self._waiting.get(row.sequence)
        tokens = list(row.tokens[1:])
        if waiting is None or waiting.end != row.start:  # new, or computed again from another place
            waiting = self._waiting[row.sequence] = _Waiting(row.start, [], [])
        elif len(waiting.tokens) < waiting.end - waiting.start:  # the last position of a part of a prompt
            tokens = list(row.tokens)
        waiting.features.append(part.clone())
        waiting.tokens += [*tokens, *result.tokens]
        self._waiting.move_to_end(row.sequence)
        return waiting

    def _must_follow(self, row: Row, waiting: _Waiting) -> bool:
        """Prompts are followed at once, for whoever finds their pages. A head without pages reads the last position
        alone, so that nothing needs to wait."""
        if self.pool is None:
            keep = waiting.end - waiting.start - 1
            if keep > 0:
                waiting.take(keep)
            return False
        return len(row.tokens) > 1 or waiting.known >= MOST_WAITING

    def _guess(self, text: Text, trees: Sequence["_Tree"]) -> None:
        level = self.head.follow(text)
        entries = list(range(len(trees)))  # of each entry of the level, whose it is
        while entries:
            places = {owner: [n for n, o in enumerate(entries) if o == owner] for owner in dict.fromkeys(entries)}
            frontier = self._grow(trees, level, places)
            if not frontier.owner:
                return
            level = self.head.expand(text, frontier)
            entries = list(frontier.owner)

    def _grow(self, trees: Sequence["_Tree"], level: Level, places: dict[int, list[int]]) -> Frontier:
        """One level more of each tree that the level says something of, and what to ask of next. places: the level's
        entries, by tree, in the order of its frontier."""
        specs = [spec_of(draw) for owner in places for draw in trees[owner].draws()]
        found = candidates(level.logits, specs)
        owners: list[int] = []
        paths: list[tuple[int, ...]] = []
        parents: list[int] = []
        for owner, entries in places.items():
            for node, parent in trees[owner].grow([found[n] for n in entries]):
                owners.append(owner)
                paths.append(trees[owner].tokens_to(node))
                parents.append(entries[parent])
        return Frontier(owners, paths, level.states[parents])


class _Tree:
    """The guesses of one row while they grow."""

    def __init__(self, head: Head, row: Row, result: RowResult) -> None:
        if row.draw is None:
            raise ValueError("guesses follow a draw")
        self._draw = after(_plain(row.draw), result.tokens)
        self._deep, self._left = min(row.ahead, head.deepest), max(row.nodes, row.ahead)
        chain = row.nodes <= row.ahead
        limits = Limits(self._left, level=1, width=1) if chain else Limits(self._left)
        self._growth = Growth(limits)
        self._depth = 0

    def draws(self) -> list[Draw]:
        """What the target would draw after each node of the frontier."""
        reads_text = penalises(self._draw.sampling)
        return [after(self._draw, self.tokens_to(node), reads_text) for node in self._growth.frontier]

    def grow(self, found: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, int]]:
        """Take in the candidates after each node of the frontier. Returns the new frontier, as far as it is worth
        asking what follows it: (node, its parent's place in the frontier before). A head writes one position for each
        node that it is asked of, so they are no more than the tree's."""
        growth, before = self._growth, {node: i for i, node in enumerate(self._growth.frontier)}
        growth.grow(found)
        self._depth += 1
        growth.frontier = self._promising()[: self._left] if self._depth < self._deep else []
        self._left -= len(growth.frontier)
        return [(node, before[growth.parents[node]]) for node in growth.frontier]

    def _promising(self) -> list[int]:
        """Nodes of the frontier that are among the likeliest so far, of which the tree will be made."""
        chance = self._growth.chance
        ranked = sorted(range(len(chance)), key=lambda node: (-chance[node], node))
        best = set(ranked[: self._growth.limits.nodes])
        return [node for node in self._growth.frontier if node in best]

    def tokens_to(self, node: int) -> tuple[int, ...]:
        growth = self._growth
        found = []
        while node != ROOT:
            found.append(growth.tokens[node])
            node = growth.parents[node]
        return tuple(found[::-1])

    def proposal(self, kind: str) -> Proposal | None:
        tree = self._growth.tree(kind)
        return Proposal(tree) if tree.tokens else None


def _no_slots(adapters: Sequence[bytes | None]) -> list[int | None]:
    return [None] * len(adapters)


def _plain(draw: Draw) -> Draw:
    """Nobody reads a guess's log-probability."""
    return msgspec.structs.replace(draw, sampling=msgspec.structs.replace(draw.sampling, logprobs=None))
