"""Drawing tokens in Triton for a whole batch at once: no sort, no copy of logits that nothing changes.

Chunks of a row are summed up once (highest, mass); a row's threshold is found by narrowing its 32-bit pattern between
pivots, over chunks that reach it; noise is drawn in chunks that reach the threshold. float64 where the reference has
it, so the same logits give the same tokens. Dual pivots: FlashInfer's sampling (Ye et al. 2025), here eight.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# What is decided while compiling stands in an `if` of its own.
# ruff: noqa: ANN001, ANN201, SIM102

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.sampling.noise import FIRST, GOLDEN, SECOND
from tenantry.kernels.sampling.packed import FORBIDDEN, SEEN, PackedSpecs
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec, SampleResult

CHUNK = 1024  # tokens per program
EDITS = 128  # changed at once
PIVOTS = 8
BOTTOM = tl.constexpr(-2139095041)  # what -inf is ordered to
EXACT = {"enable_fp_fusion": False}  # the reference rounds after every operation


@triton.jit
def ordered(x):
    """fp32 as int32 of the same order; both zeros are one."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def unordered(pattern):
    bits = pattern ^ ((pattern >> 31) & 0x7FFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def scaled(values, floats, row, i, V: tl.constexpr):
    """Tokens i of a row over its temperature (over 1 for greedy rows); -inf outside."""
    temperature = tl.load(floats + 4 * row).to(tl.float32)
    temperature = tl.where(temperature == 0.0, 1.0, temperature)
    x = tl.load(values + row * V + i, mask=i < V, other=-float("inf"))
    return tl.div_rn(x, temperature)


@triton.jit
def edit_kernel(
    values, ints, floats, edits, changes, V: tl.constexpr, N: tl.constexpr, SEEN: tl.constexpr, NEVER: tl.constexpr
):
    """Bias, penalties and forbidden ids, in place. One program per row."""
    row = tl.program_id(0).to(tl.int64)
    first, past = tl.load(ints + 4 * row + 2), tl.load(ints + 4 * row + 3)
    penalty = tl.load(floats + 4 * row + 3).to(tl.float32)
    for at in range(first, past, N):
        e = at + tl.arange(0, N)
        live = e < past
        token = tl.load(edits + 2 * e, mask=live, other=0)
        flags = tl.load(edits + 2 * e + 1, mask=live, other=0)
        x = tl.load(values + row * V + token, mask=live, other=0.0) + tl.load(changes + 2 * e, mask=live, other=0.0)
        punished = tl.where(x > 0, tl.div_rn(x, tl.zeros_like(x) + penalty), x * penalty)
        x = tl.where((flags & SEEN) != 0, punished, x) - tl.load(changes + 2 * e + 1, mask=live, other=0.0)
        tl.store(values + row * V + token, tl.where((flags & NEVER) != 0, -float("inf"), x), mask=live)


@triton.jit
def top_kernel(logits, values, floats, tops, firsts, finite, masses, chunks, V: tl.constexpr, N: tl.constexpr):
    """Per chunk: highest value, its lowest id, whether all logits are finite, mass relative to the highest (where
    top_p wants it). One program per (row, chunk)."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = chunk * N + tl.arange(0, N)
    inside = i < V
    raw = tl.load(logits + row * V + i, mask=inside, other=0.0)
    x = scaled(values, floats, row, i, V)
    top = tl.max(x, 0)
    at = row * chunks + chunk
    tl.store(tops + at, top)
    tl.store(firsts + at, tl.min(tl.where(x == top, i, V), 0))
    tl.store(finite + at, tl.min((tl.abs(raw) < float("inf")).to(tl.int32), 0))
    if tl.load(floats + 4 * row + 2) < 1.0:
        floor = tl.where(top == -float("inf"), 0.0, top)
        tl.store(masses + at, tl.sum(tl.exp((x - floor).to(tl.float64)), 0))


@triton.jit
def tally(values, floats, tops, row, top, low, pivots, chunks, V: tl.constexpr, N: tl.constexpr, P: tl.constexpr):
    """How many values of a row reach each of the pivots, and their mass. Values below `low` are not looked at."""
    counts, masses = tl.zeros((P,), tl.int32), tl.zeros((P,), tl.float64)
    for chunk in range(chunks):
        if ordered(tl.load(tops + row * chunks + chunk)) >= low:
            i = chunk * N + tl.arange(0, N)
            x = scaled(values, floats, row, i, V)
            reaches = (ordered(x)[:, None] >= pivots[None, :]) & (i < V)[:, None]
            counts += tl.sum(reaches.to(tl.int32), 0)
            masses += tl.sum(tl.where(reaches, tl.exp((x - top).to(tl.float64))[:, None], 0.0), 0)
    return counts, masses


@triton.jit
def narrow(
    values, floats, tops, row, top, low, high, count, mass, chunks, V: tl.constexpr, N: tl.constexpr, P: tl.constexpr
):
    """The highest pattern whose reachers are at least `count` and weigh at least `mass`, or one that the same values
    reach. low is known to be such a pattern; none above high is."""
    step = tl.arange(0, P) + 1
    low, high = low.to(tl.int64), high.to(tl.int64)
    while low < high:
        pivots = low + (high - low) * step // P  # the last is high itself
        counts, masses = tally(values, floats, tops, row, top, low.to(tl.int32), pivots.to(tl.int32), chunks, V, N, P)
        enough = (counts >= count) & (masses >= mass)
        past = tl.min(tl.where(enough, P + 1, step), 0)  # the first that is too high
        beyond = tl.max(tl.where(enough, 0, counts), 0)
        here = tl.min(tl.where(enough, counts, 2147483647), 0)
        next_high = tl.max(tl.where(step == past, pivots, low), 0) - 1
        next_low = tl.max(tl.where(enough, pivots, low), 0)
        if past == P + 1:
            low = high
        else:
            low, high = next_low, tl.maximum(next_high, next_low)
            if here - beyond == 1:  # one value alone is between: whatever reaches low is that and all above
                high = low
    return low.to(tl.int32)


@triton.jit
def threshold_kernel(
    values, ints, floats, tops, masses, least, chunks,
    V: tl.constexpr, N: tl.constexpr, P: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """least [R] float64: what min_p, top_k and top_p keep. One program per row."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CHUNKS)
    live = c < chunks
    all_tops = tl.load(tops + row * chunks + c, mask=live, other=-float("inf"))
    top = tl.max(all_tops, 0)
    bound = top.to(tl.float64) + tl.load(floats + 4 * row + 1)
    top_k, top_p = tl.load(ints + 4 * row + 1), tl.load(floats + 4 * row + 2)
    if top > -float("inf"):
        high = ordered(top)
        low = high * 0 + BOTTOM
        if top_k > 0:
            low = narrow(values, floats, tops, row, top, low, high, top_k, 0.0, chunks, V, N, P)
            bound = tl.maximum(bound, unordered(low).to(tl.float64))
        if top_p < 1.0:
            if bound == -float("inf"):
                weight = tl.load(masses + row * chunks + c, mask=live, other=0.0)
                weight *= tl.exp((all_tops - top).to(tl.float64))
                whole = tl.sum(tl.where(all_tops == -float("inf"), 0.0, weight), 0)
            else:
                near = bound.to(tl.float32)  # the lowest fp32 that is not below the bound
                near = tl.where(near.to(tl.float64) < bound, unordered(ordered(near) + 1), near)
                low = ordered(near)
                same = low + tl.zeros((P,), tl.int32)
                _, reached = tally(values, floats, tops, row, top, low, same, chunks, V, N, P)
                whole = tl.max(reached, 0)
            low = narrow(values, floats, tops, row, top, low, high, 0, top_p * whole, chunks, V, N, P)
            bound = tl.maximum(bound, unordered(low).to(tl.float64))
    tl.store(least + row, bound)


@triton.jit
def gumbel(key, i, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr):
    """noise.gumbel, operation by operation."""
    x = key.to(tl.uint64, bitcast=True) + (i + 1).to(tl.uint64) * tl.full((), GOLDEN, tl.uint64)
    x = (x ^ (x >> 30)) * tl.full((), FIRST, tl.uint64)
    x = (x ^ (x >> 27)) * tl.full((), SECOND, tl.uint64)
    x = x ^ (x >> 31)
    uniform = ((x >> 11).to(tl.float64) + 0.5) * 1.1102230246251565e-16  # 2**-53
    return -tl.log(-tl.log(uniform))


@triton.jit
def draw_kernel(
    values, ints, floats, tops, least, best, winners, chunks,
    V: tl.constexpr, N: tl.constexpr, GOLDEN: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr,
):  # fmt: skip
    """Per chunk: the highest of value plus noise among what is kept, and its lowest id. One program each."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = row * chunks + chunk
    bound, top = tl.load(least + row), tl.load(tops + at)
    if (tl.load(floats + 4 * row) > 0.0) & (top.to(tl.float64) >= bound) & (top > -float("inf")):
        i = chunk * N + tl.arange(0, N)
        x = scaled(values, floats, row, i, V)
        noisy = x.to(tl.float64) + gumbel(tl.load(ints + 4 * row), i, GOLDEN, FIRST, SECOND)
        noisy = tl.where((x.to(tl.float64) >= bound) & (x > -float("inf")), noisy, -float("inf"))
        highest = tl.max(noisy, 0)
        tl.store(best + at, highest)
        tl.store(winners + at, tl.min(tl.where(noisy == highest, i, V), 0))
    else:
        tl.store(best + at, -float("inf"))
        tl.store(winners + at, V)


@triton.jit
def choose_kernel(
    floats, tops, firsts, finite, best, winners, ids, chunks,
    V: tl.constexpr, CHUNKS: tl.constexpr, DRAWS: tl.constexpr,
):  # fmt: skip
    """ids [R]: the winner among chunks; -1 where a logit is not finite or nothing may be drawn. One program a row."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, CHUNKS)
    live, at = c < chunks, row * chunks + c
    all_tops = tl.load(tops + at, mask=live, other=-float("inf"))
    top = tl.max(all_tops, 0)
    first = tl.load(firsts + at, mask=live, other=V)
    token = tl.min(tl.where(all_tops == top, first, V), 0)
    if DRAWS:
        if tl.load(floats + 4 * row) > 0.0:
            scores = tl.load(best + at, mask=live, other=-float("inf"))
            winner = tl.load(winners + at, mask=live, other=V)
            token = tl.min(tl.where(scores == tl.max(scores, 0), winner, V), 0)
    whole = tl.min(tl.load(finite + at, mask=live, other=1), 0) == 1
    tl.store(ids + row, tl.where(whole & (top > -float("inf")), token, -1).to(tl.int64))


class OnTheWay:
    """A batch that is queued on the current stream, and one pinned copy of all that the host wants of it. ids: int64
    [R] on the device, -1 where faulty, ready for whatever is queued next."""

    def __init__(
        self, ids: Tensor, wanted: Sequence[int], counts: Sequence[int], listed: Tensor | None, beside: Tensor
    ) -> None:
        self.ids = ids
        self._wanted, self._counts, self._width = wanted, counts, 0 if listed is None else listed.shape[1]
        parts = [ids, beside.to(torch.int64)]
        if listed is not None:
            parts.insert(1, listed.view(torch.int64).reshape(-1))
        words = torch.cat(parts)
        self._host, self._event, self._along = words, None, len(words) - len(beside)
        if words.is_cuda:
            self._host = torch.empty(words.shape, dtype=words.dtype, pin_memory=True)
            self._host.copy_(words, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def beside(self) -> Tensor:
        return self._words()[self._along :].bool()

    def result(self) -> SampleResult:
        host, rows = self._words(), len(self.ids)
        ids = host[:rows].tolist()
        logprobs: list[DrawLogprobs | None] = [None] * rows
        if self._wanted:
            listed = host[rows : self._along].view(torch.float64).view(-1, self._width).tolist()
            most = (self._width - 1) // 2
            for row, count, (own, *rest) in zip(self._wanted, self._counts, listed, strict=True):
                if ids[row] >= 0:
                    top = tuple((int(token), value) for token, value in zip(rest[:count], rest[most:], strict=False))
                    logprobs[row] = DrawLogprobs(own, top)
        return SampleResult(tuple(ids), tuple(logprobs), tuple(i < 0 for i in ids))

    def _words(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


def draw(logits: Tensor, specs: Sequence[DrawSpec], beside: Tensor) -> OnTheWay:
    """Queue the draw of one token per row. logits: [R, V] fp32, left as they are. beside: bool [N], comes along."""
    logits = logits.contiguous()
    rows, size = logits.shape
    if rows != len(specs):
        raise ValueError("specs: one per row")
    device = logits.device
    if rows == 0:
        return OnTheWay(torch.empty(0, dtype=torch.int64, device=device), (), (), None, beside)
    chunks = triton.cdiv(size, CHUNK)
    packed = PackedSpecs.build(specs, size, device)
    values = logits
    common: dict[str, Any] = {"V": size, "N": CHUNK, **EXACT}
    if len(packed.edits):
        values = logits.clone()
        edit_kernel[(rows,)](
            values, packed.ints, packed.floats, packed.edits, packed.changes,
            V=size, N=EDITS, SEEN=SEEN, NEVER=FORBIDDEN, **EXACT,
        )  # fmt: skip
    tops = torch.empty((rows, chunks), dtype=torch.float32, device=device)
    firsts, finite = torch.empty((2, rows, chunks), dtype=torch.int32, device=device)
    masses, best = torch.empty((2, rows, chunks), dtype=torch.float64, device=device)
    winners = torch.empty((rows, chunks), dtype=torch.int32, device=device)
    top_kernel[(rows, chunks)](logits, values, packed.floats, tops, firsts, finite, masses, chunks, **common)
    wide = triton.next_power_of_2(chunks)
    least = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
    if packed.filters:
        threshold_kernel[(rows,)](
            values, packed.ints, packed.floats, tops, masses, least, chunks,
            P=PIVOTS, CHUNKS=wide, num_warps=8, **common,
        )  # fmt: skip
    if packed.draws:
        draw_kernel[(rows, chunks)](
            values, packed.ints, packed.floats, tops, least, best, winners, chunks,
            GOLDEN=GOLDEN, FIRST=FIRST, SECOND=SECOND, **common,
        )  # fmt: skip
    ids = torch.empty(rows, dtype=torch.int64, device=device)
    choose_kernel[(rows,)](
        packed.floats, tops, firsts, finite, best, winners, ids, chunks, V=size, CHUNKS=wide, DRAWS=packed.draws
    )
    wanted = [row for row, spec in enumerate(specs) if spec.logprobs is not None]
    counts = [min(specs[row].logprobs or 0, size) for row in wanted]
    listed = _listed(logits, ids, wanted, max(counts)) if wanted else None
    return OnTheWay(ids, wanted, counts, listed, beside)


def _listed(logits: Tensor, ids: Tensor, wanted: list[int], most: int) -> Tensor:
    """float64 [wanted rows, 1 + 2 * most]: logprob of the drawn token, the likeliest ids (equals by rising id), their
    logprobs, of the distribution that the model gave."""
    rows = torch.tensor(wanted, device=logits.device)
    given, drawn = logits[rows], ids[rows].clamp(min=0)
    whole = given.double().logsumexp(-1, keepdim=True)
    own = given.gather(1, drawn[:, None]).double() - whole
    bits = (given + 0.0).view(torch.int32)
    order = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32
    order += logits.shape[1] - 1 - torch.arange(logits.shape[1], device=logits.device)
    best = logits.shape[1] - 1 - (order.topk(most, 1).values & 0xFFFFFFFF)
    return torch.cat((own, best.double(), given.gather(1, best).double() - whole), 1)


def sample(logits: Tensor, specs: Sequence[DrawSpec]) -> SampleResult:
    """Draw one token per row, and wait. logits: [R, V] fp32, left as they are. specs: one per row."""
    return draw(logits, specs, torch.empty(0, dtype=torch.bool, device=logits.device)).result()
