"""Heads as a proposer: what the target computed goes in, trees of guesses come out.

Owns which positions a head has not computed yet, and the walk from level to level. It must not know how a head
computes (head.py), nor which guesses are kept (speculative/growth.py). A position is computed once its next token is
known. Of a text that is not followed whole the last features wait, and a head that is asked sees the text from there
on: rotary positions are relative, so that a view may begin at any page.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from tenantry.kernels.chain.contract import Chain
from tenantry.runtime.model.batch import row_lengths
from tenantry.runtime.model.candidates import candidates
from tenantry.runtime.model.chained import far_behind, plain, walk
from tenantry.runtime.model.heads.head import Frontier, Head, Level, Text
from tenantry.runtime.model.heads.waiting import Piece, Waiting
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import penalises, spec_of
from tenantry.runtime.model.spine import WIDTH
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.growth import Growth, Limits
from tenantry.runtime.speculative.tree import MAX_NODES, ROOT
from tenantry.runtime.speculative.tree import walk as standing

REMEMBERED = 1024  # sequences whose features wait; others go on from what they compute next
MOST_WAITING = 32  # positions of one sequence, or two pages
Slots = Callable[[Sequence[bytes | None]], list[int | None]]


class HeadProposer:
    """A Proposer. slots: where the head's table holds what it has for each of these adapters, None for nothing.
    fitted: those are LoRAs of the head's own."""

    def __init__(self, head: Head, slots: Slots | None = None, fitted: bool = False) -> None:
        self.head, self._slots, self._fitted = head, slots or _no_slots, fitted
        self.taps, self.pool = head.taps, head.pool
        self._size = head.pool.layout.page_size if head.pool is not None else 0
        self._kept = max(MOST_WAITING, 2 * self._size) if self._size else 1
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._followed: dict[int, int] = {}  # pages filled with the text that is in the target's: its view's begin

    def follow(self, rows: Sequence[Row], results: Sequence[RowResult], taps: Tensor | None) -> list[Proposal | None]:
        """See Proposer."""
        if taps is None:
            raise ValueError("heads read the target's hidden states, and this step has none")
        found: list[Proposal | None] = [None] * len(rows)
        following: list[tuple[Row, Tensor]] = []
        asking: list[tuple[int, int]] = []  # index into rows, and into following
        small, past = all(len(row.tokens) == 1 for row in rows), 0
        if small:  # may stay as it is; of a step with prompts that is kept which waits
            taps = taps.clone()
        for i, (row, result, length) in enumerate(zip(rows, results, row_lengths(rows), strict=True)):
            first, past = past, past + length
            if result.fault is not None:
                self._waiting.pop(row.sequence, None)
                continue
            waiting = self._told(row, result, taps, first)
            guess = row.ahead > 0 and bool(result.tokens)
            if guess or self._must_follow(row, waiting):
                text = self._next(row, waiting)
                if text is not None:
                    if guess:
                        asking.append((i, len(following)))
                    following.append(text)
            waiting.skip(waiting.end - waiting.start - self._kept)
            if not small:
                waiting.detach()
        while len(self._waiting) > REMEMBERED:
            self._waiting.popitem(last=False)
        if following:
            trees = [_Tree(self.head, rows[i], results[i]) for i, _ in asking]
            asked = [following[at] for _, at in asking]
            draws = [tree.draw for tree in trees]
            chain = self.head.chain
            if trees and chain is not None and plain(draws, [True] * len(draws)):
                places = {at for _, at in asking}
                rest = [one for at, one in enumerate(following) if at not in places]
                for n, (row, features) in enumerate(asked):
                    parts = far_behind(row)
                    if parts is not None:
                        rest.append((parts[0], features[:-1]))
                        asked[n] = parts[1], features[-1:]
                if rest:
                    self._guess(self._text(rest, []), [])
                self._walk(chain, asked, trees)
            else:
                self._guess(self._text(following, [at for _, at in asking]), trees)
            for (i, _), tree in zip(asking, trees, strict=True):
                fitted = self._fitted and self._slots([rows[i].adapter]) != [None]
                found[i] = tree.proposal(self.head.kind, fitted)
        return found

    def _told(self, row: Row, result: RowResult, taps: Tensor, first: int) -> Waiting:
        """What waits of a sequence, now that the target has computed this row, whose features are taps[first:]."""
        own = len(row.tokens)
        nodes: tuple[int, ...] = ()
        if row.draft is not None and result.accepted:
            nodes = tuple(first + own + node for node in standing(row.draft, result.tokens[: result.accepted]))
        waiting = self._waiting.get(row.sequence)
        tokens = row.tokens[1:]
        if waiting is None or waiting.end != row.start:  # new, or computed again from another place
            waiting = self._waiting[row.sequence] = Waiting(row.start)
        elif len(waiting.tokens) < waiting.end - waiting.start:  # the last position of a part of a prompt
            tokens = row.tokens
        waiting.add(Piece(taps, first, own, nodes), (*tokens, *result.tokens))
        self._waiting.move_to_end(row.sequence)
        if self._size:
            for index in range(row.start // self._size, (waiting.end - 1) // self._size + 1):
                self._followed.pop(row.pages[index], None)
        return waiting

    def _must_follow(self, row: Row, waiting: Waiting) -> bool:
        """A text that is followed whole: its prompt at once, for whoever finds its pages. A head without pages reads
        the last position alone, so that nothing needs to be followed."""
        return self._size > 0 and row.follow and (len(row.tokens) > 1 or waiting.known >= self._kept)

    def _next(self, row: Row, waiting: Waiting) -> tuple[Row, Tensor] | None:
        """What the head computes of a text now, in its own view, with features; None where it is nothing yet."""
        if self._size and waiting.followed != waiting.start:
            self._enter(row.pages, waiting)
        if not waiting.known or (self._size and waiting.followed != waiting.start):
            return None
        start, begin = waiting.start, waiting.begin
        features, tokens = waiting.take(waiting.known)
        pages = row.pages
        if self._size:
            self._followed.update(dict.fromkeys(pages[start // self._size : waiting.start // self._size], begin))
            waiting.followed = waiting.start
            pages = pages[begin // self._size :] if begin else pages
        return Row(row.sequence, tokens, start - begin, pages, row.adapter, None), features

    def _enter(self, pages: Sequence[int], waiting: Waiting) -> None:
        """Of what is before the positions that wait something was never followed, or nothing is known: the view of
        this text begins with their first page, or where it began for whoever filled the pages before that one."""
        begin = -(-waiting.start // self._size) * self._size
        waiting.skip(begin - waiting.start)
        if waiting.start == begin:
            waiting.followed = waiting.begin = begin
            before = pages[: begin // self._size]
            first = self._followed.get(before[-1]) if before else None
            if first is not None and all(self._followed.get(p) == first for p in before[first // self._size :]):
                waiting.begin = first

    def _text(self, following: Sequence[tuple[Row, Tensor]], guessing: Sequence[int]) -> Text:
        rows = [row for row, _ in following]
        features = torch.cat([features for _, features in following])
        return Text(rows, features, guessing, self._slots([row.adapter for row in rows]))

    def _walk(self, chain: Chain, asked: Sequence[tuple[Row, Tensor]], trees: Sequence["_Tree"]) -> None:
        """Grow trees around a spine, which costs one call."""
        rows, slots = [row for row, _ in asked], self._slots([row.adapter for row, _ in asked])
        table, plan = self.head.table, None
        if table is not None and any(slot is not None for slot in slots):
            plan = table.plan(slots, [1] * len(rows))
        draws, levels = [tree.draw for tree in trees], [tree.deep for tree in trees]
        walked = walk(chain, rows, draws, levels, WIDTH, plan, [features for _, features in asked])
        for r, tree in enumerate(trees):
            for level in range(tree.deep):
                if not tree.grow([walked.candidates(r, level)], most=1):
                    break

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
        self.draw = after(_plain(row.draw), result.tokens)
        self.deep, self._left = min(row.ahead, head.deepest), max(row.nodes, row.ahead)
        chain = row.nodes <= row.ahead
        limits = Limits(self._left, level=1, width=1) if chain else Limits(self._left)
        self._growth = Growth(limits)
        self._depth = 0

    def draws(self) -> list[Draw]:
        """What the target would draw after each node of the frontier."""
        reads_text = penalises(self.draw.sampling)
        return [after(self.draw, self.tokens_to(node), reads_text) for node in self._growth.frontier]

    def grow(self, found: Sequence[Sequence[tuple[int, float]]], most: int = MAX_NODES) -> list[tuple[int, int]]:
        """Take in the candidates after each node of the frontier. Returns the new frontier, as far as it is worth
        asking what follows it, `most` nodes: (node, its parent's place in the frontier before). A head writes one
        position for each node that it is asked of, so they are no more than the tree's."""
        growth, before = self._growth, {node: i for i, node in enumerate(self._growth.frontier)}
        growth.grow(found)
        self._depth += 1
        growth.frontier = self._promising()[: min(self._left, most)] if self._depth < self.deep else []
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

    def proposal(self, kind: str, fitted: bool) -> Proposal | None:
        tree = msgspec.structs.replace(self._growth.tree(kind), fitted=fitted)
        return Proposal(tree) if tree.tokens else None


def _no_slots(adapters: Sequence[bytes | None]) -> list[int | None]:
    return [None] * len(adapters)


def _plain(draw: Draw) -> Draw:
    """Nobody reads a guess's log-probability."""
    return msgspec.structs.replace(draw, sampling=msgspec.structs.replace(draw.sampling, logprobs=None))
