"""How an adapter's pieces lie in runs of blocks: pure arithmetic, the same for who decides and for who copies.

Owns first-fit packing. A piece never leaves its run, so a kernel reads it from one address; runs are chosen so that
as little as possible is left over at their ends. It must not know what a block or a piece holds.
"""

from collections.abc import Iterable, Sequence

Extent = tuple[int, int]  # first block, number of blocks


def lay_out(pieces: Sequence[int], capacities: Sequence[int]) -> list[tuple[int, int]] | None:
    """First fit, in order: for each piece (index of its run, offset in it). None when one finds no room.

    pieces, capacities: bytes. Cutting a run down to what is used of it changes nothing: what fitted still does, and
    what did not fit does even less.
    """
    used = [0] * len(capacities)
    places = []
    for piece in pieces:
        for run, capacity in enumerate(capacities):
            if used[run] + piece <= capacity:
                places.append((run, used[run]))
                used[run] += piece
                break
        else:
            return None
    return places


def choose(pieces: Sequence[int], runs: Iterable[Extent], block_bytes: int) -> tuple[Extent, ...] | None:
    """The extents to take out of free `runs`, which do not touch each other. None when the pieces do not fit.

    One run for all if there is one, the shortest that does; else the longest few. Always a run's high end, since
    single blocks are taken from the low end of memory.
    """
    runs = list(runs)
    need = -(-sum(pieces) // block_bytes)
    whole = [run for run in runs if run[1] >= need]
    if whole:
        first, count = min(whole, key=lambda run: (run[1], -run[0]))
        return ((first + count - need, need),)
    runs.sort(key=lambda run: (-run[1], -run[0]))
    places = lay_out(pieces, [count * block_bytes for _, count in runs])
    if places is None:
        return None
    taken = _blocks(pieces, places, len(runs), block_bytes)
    return tuple((first + count - n, n) for (first, count), n in zip(runs, taken, strict=True) if n)


def offsets(
    pieces: Sequence[int], extents: Sequence[Extent], block_bytes: int, asked: Sequence[int] | None = None
) -> list[int]:
    """Where each piece begins, in bytes from the arena's start. asked: what the extents were chosen for, if that was
    more of each piece: it stays in its run, next to the one before. Raises ValueError if the extents do not hold
    them."""
    places = _lay_out_smaller(pieces, pieces if asked is None else asked, extents, block_bytes)
    return [extents[run][0] * block_bytes + offset for run, offset in places]


def shrunk(
    pieces: Sequence[int], extents: Sequence[Extent], block_bytes: int, asked: Sequence[int]
) -> tuple[Extent, ...]:
    """What remains of the extents where pieces need less than was asked for and lie as offsets() says."""
    places = _lay_out_smaller(pieces, asked, extents, block_bytes)
    taken = _blocks(pieces, places, len(extents), block_bytes)
    return tuple((first, n) for (first, _), n in zip(extents, taken, strict=True) if n)


def gaps(held: Iterable[Extent], blocks: int) -> list[Extent]:
    """The runs between extents that do not overlap, of blocks 0 .. blocks - 1."""
    runs, at = [], 0
    for first, count in sorted(held):
        if first > at:
            runs.append((at, first - at))
        at = first + count
    if at < blocks:
        runs.append((at, blocks - at))
    return runs


def _blocks(pieces: Sequence[int], places: Sequence[tuple[int, int]], runs: int, block_bytes: int) -> list[int]:
    """Blocks of each run up to the end of its last piece."""
    used = [0] * runs
    for (run, offset), piece in zip(places, pieces, strict=True):
        used[run] = max(used[run], offset + piece)
    return [-(-size // block_bytes) for size in used]


def _lay_out_smaller(
    pieces: Sequence[int], asked: Sequence[int], extents: Sequence[Extent], block_bytes: int
) -> list[tuple[int, int]]:
    places = lay_out(asked, [count * block_bytes for _, count in extents])
    if places is None:
        raise ValueError(f"{sum(asked)} bytes in {len(asked)} pieces do not fit {extents} of {block_bytes} bytes")
    used = [0] * len(extents)
    found = []
    for (run, _), piece in zip(places, pieces, strict=True):
        found.append((run, used[run]))
        used[run] += piece
    return found
