"""Going on from guesses with keys and values in pages: which rows compute a frontier.

Owns the guesses of each row that have been gone on from. A chain goes on from what its pages hold. Of a tree all is
computed again with the new nodes, since a query sees everything that was computed before its own step, other
branches too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tenantry.runtime.model.batch import row_lengths
from tenantry.runtime.model.heads.head import Frontier, Text
from tenantry.runtime.plan import Row
from tenantry.runtime.speculative.tree import ROOT, DraftTree


class Work(NamedTuple):
    """rows: to compute, one for each of `owners`. whole: of each row, whether it begins with the root, and every node
    follows; else it is the newest node alone. wanted: places of the frontier's entries among the rows' tokens."""

    rows: list[Row]
    owners: list[int]
    whole: list[bool]
    wanted: list[int]


class Expansion:
    """text: what guesses follow. ahead: by how many positions a row's last token is beyond where the root stands: 0
    where the root is the last position of the text's row, 1 where it is the token after it."""

    def __init__(self, text: Text, ahead: int) -> None:
        self._text, self._ahead = text, ahead
        self._paths: list[list[tuple[int, ...]]] = [[] for _ in text.guessing]

    def root(self, owner: int) -> Row:
        """A row of the root alone."""
        row = self._text.rows[self._text.guessing[owner]]
        return msgspec.structs.replace(
            row, tokens=row.tokens[-1:], start=row.start + len(row.tokens) - 1 + self._ahead
        )

    def add(self, frontier: Frontier) -> None:
        """These are gone on from as well, now."""
        for owner, path in zip(frontier.owner, frontier.paths, strict=True):
            self._paths[owner].append(path)

    def chains(self, owners: Sequence[int]) -> bool:
        """Whether none of these rows' guesses branch: one token each is all that there is to compute."""
        return len(set(owners)) == len(owners) and all(_is_chain(self._paths[owner]) for owner in owners)

    def work(self, frontier: Frontier) -> Work:
        """frontier: what was added last."""
        found, count = Work([], list(dict.fromkeys(frontier.owner)), [], []), 0
        for owner in found.owners:
            paths, root = self._paths[owner], self.root(owner)
            chain = _is_chain(paths)
            if chain:
                row = msgspec.structs.replace(root, tokens=paths[-1][-1:], start=root.start + len(paths))
            else:
                row = msgspec.structs.replace(root, draft=_tree(paths))
            found.rows.append(row)
            found.whole.append(not chain)
            count += row_lengths([row])[0]
            found.wanted.extend(range(count - list(frontier.owner).count(owner), count))
        return found


def _is_chain(paths: Sequence[tuple[int, ...]]) -> bool:
    return all(path == paths[-1][: i + 1] for i, path in enumerate(paths))


def _tree(paths: Sequence[tuple[int, ...]]) -> DraftTree:
    place = {path: i for i, path in enumerate(paths)}
    parents = tuple(place.get(path[:-1], ROOT) for path in paths)
    return DraftTree(tuple(path[-1] for path in paths), parents)
