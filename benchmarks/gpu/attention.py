"""M3: paged decode attention over int8 and bf16 pages, even and uneven lengths, and a prefill chunk over a prefix.

Beside torch's SDPA over contiguous keys (which needs a gather that it is not charged), flex_attention over the same,
and open paged kernels. The floor is every key and value in the pages read once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.device import DEVICE, DTYPE, REAL, SHAPE, Ceilings, beside, error, micros, rotations, say
from benchmarks.gpu.peers import PeerAbsent, QuantPolicy, load
from benchmarks.report import Report
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.ops import select_ops

PAGE = 16
SPLIT = 128  # LightLLM's tokens per part


@dataclass(frozen=True, slots=True)
class Case:
    """lengths: tokens in each row's pages, its own included. q_len: queries of each row. k, v: [tokens, kv heads,
    head_dim] of all rows, one after another, for the reference and for contiguous peers."""

    name: str
    lengths: tuple[int, ...]
    q_len: int
    q: Tensor
    k: Tensor
    v: Tensor

    @property
    def tables(self) -> list[list[int]]:
        """Pages scattered as an allocator's are after a while."""
        pages = list(range(sum(-(-n // PAGE) for n in self.lengths)))
        Random(0).shuffle(pages)
        return [[pages.pop() for _ in range(-(-n // PAGE))] for n in self.lengths]

    def expected(self) -> Tensor:
        """fp64, row by row."""
        out, at, group = [], 0, SHAPE.heads // SHAPE.kv_heads
        for row, length in enumerate(self.lengths):
            k, v = (t[at : at + length].double().repeat_interleave(group, 1) for t in (self.k, self.v))
            q = self.q[row * self.q_len : (row + 1) * self.q_len].double()
            scores = torch.einsum("qhd,khd->hqk", q, k) * SHAPE.head_dim**-0.5
            seen = torch.ones(self.q_len, length, dtype=torch.bool, device=DEVICE).tril(length - self.q_len)
            scores = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            out.append(torch.einsum("hqk,khd->qhd", scores, v))
            at += length
        return torch.cat(out)


def case(name: str, lengths: Sequence[int], q_len: int = 1) -> Case:
    noise = torch.Generator(DEVICE).manual_seed(2)

    def made(rows: int, heads: int) -> Tensor:
        return torch.randn(rows, heads, SHAPE.head_dim, generator=noise, device=DEVICE).to(DTYPE)

    tokens = sum(lengths)
    q, k, v = made(len(lengths) * q_len, SHAPE.heads), made(tokens, SHAPE.kv_heads), made(tokens, SHAPE.kv_heads)
    return Case(name, tuple(lengths), q_len, q, k, v)


def pages_of(c: Case, kind: torch.dtype) -> tuple[LayerPages, int]:
    """The case's keys and values written by our own operation; bytes of those pages that are read."""
    tables = c.tables
    layout = PageLayout(SHAPE.kv_heads, SHAPE.head_dim, PAGE, dtype=kind, scale_dtype=torch.float16)
    pages = layout.allocate(sum(map(len, tables)), DEVICE)
    slots = [table[i // PAGE] * PAGE + i % PAGE for table, n in zip(tables, c.lengths, strict=True) for i in range(n)]
    select_ops("cuda").write_kv(c.k, c.v, pages, torch.tensor(slots, device=DEVICE))
    return pages, sum(c.lengths) * layout.bytes_per_page // PAGE


def ours(c: Case, kind: torch.dtype) -> tuple[float, float, int]:
    """Microseconds per layer, error, bytes read."""
    ops = select_ops("cuda")
    pages, nbytes = pages_of(c, kind)
    layers = [pages, *(copied(pages) for _ in range(rotations(nbytes, 16) - 1))]
    plan = AttentionPlan.build([c.q_len] * len(c.lengths), list(c.lengths), c.tables, PAGE, DEVICE)
    scale = SHAPE.head_dim**-0.5
    off = error(ops.attention(c.q, pages, plan, scale), c.expected())
    return micros(lambda: [ops.attention(c.q, p, plan, scale) for p in layers], per=len(layers)), off, nbytes


def copied(pages: LayerPages) -> LayerPages:
    scales = (None if s is None else s.clone() for s in (pages.k_scale, pages.v_scale))
    return LayerPages(pages.k.clone(), pages.v.clone(), *scales)


def even(c: Case) -> tuple[Tensor, Tensor, Tensor]:
    """q [rows, heads, queries, dim], k and v [rows, kv heads, length, dim]. Raises PeerAbsent for uneven rows."""
    if len(set(c.lengths)) > 1:
        raise PeerAbsent("contiguous keys of uneven rows would need padding")
    rows, length = len(c.lengths), c.lengths[0]
    q = c.q.view(rows, c.q_len, SHAPE.heads, -1).transpose(1, 2)
    k, v = (t.view(rows, length, SHAPE.kv_heads, -1).transpose(1, 2).contiguous() for t in (c.k, c.v))
    return q, k, v


def sdpa(c: Case, _folder: Path | None) -> Callable[[], Tensor]:
    q, k, v = even(c)
    seen = torch.ones(c.q_len, k.shape[2], dtype=torch.bool, device=DEVICE).tril(k.shape[2] - c.q_len)
    mask = None if c.q_len == 1 else seen

    def run() -> Tensor:
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(c.q.shape)

    return run


def flex(c: Case, _folder: Path | None) -> Callable[[], Tensor]:
    if not REAL:
        raise PeerAbsent("flex_attention is compiled for a CUDA device only")
    from torch.nn.attention.flex_attention import flex_attention

    if c.q_len > 1:
        raise PeerAbsent("timed for decode only")
    q, k, v = even(c)
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, enable_gqa=True).transpose(1, 2).reshape(c.q.shape)


def lightllm(c: Case, folder: Path | None) -> Callable[[], Tensor]:
    """bf16, a table of token places; parts of 128 tokens, then a reduction."""
    stage1, stage2 = load(folder, "lightllm", "gqa_flash_decoding_stage1", "gqa_flash_decoding_stage2")
    if c.q_len > 1:
        raise PeerAbsent("decodes one token of a row")
    rows, longest = len(c.lengths), max(c.lengths)
    places = torch.zeros(rows, longest, dtype=torch.int32, device=DEVICE)
    at = 0
    for row, length in enumerate(c.lengths):
        places[row, :length] = torch.arange(at, at + length, device=DEVICE)
        at += length
    which = torch.arange(rows, dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor(c.lengths, dtype=torch.int32, device=DEVICE)
    parts = longest // SPLIT + 1
    middle = torch.empty(rows, SHAPE.heads, parts, SHAPE.head_dim, dtype=torch.float32, device=DEVICE)
    sums = torch.empty(rows, SHAPE.heads, parts, dtype=torch.float32, device=DEVICE)
    out = torch.empty_like(c.q)

    def run() -> Tensor:
        stage1.flash_decode_stage1(c.q, c.k, c.v, places, which, lengths, longest, middle, sums, SPLIT)
        stage2.flash_decode_stage2(middle, sums, lengths, out, SPLIT)
        return out

    return run


def lmdeploy(c: Case, folder: Path | None) -> Callable[[], Tensor]:
    """int8 with a scale and a zero per token and head: our codes, shifted to be unsigned."""
    if not REAL:
        raise PeerAbsent("asks the CUDA device for its properties")
    (_, paged) = load(folder, "lmdeploy", "utils", "pagedattention")
    if c.q_len > 1:
        raise PeerAbsent("decodes one token of a row")
    pages, _ = pages_of(c, torch.int8)
    assert pages.k_scale is not None
    assert pages.v_scale is not None
    tables = c.tables
    table = torch.zeros(len(tables), max(map(len, tables)), dtype=torch.int32, device=DEVICE)
    for row, own in enumerate(tables):
        table[row, : len(own)] = torch.tensor(own)
    k, v = ((codes.int() + 128).to(torch.uint8) for codes in (pages.k, pages.v))
    zeros = torch.full_like(pages.k_scale, 128.0)
    k_meta, v_meta = (torch.cat((s, zeros), -1).to(DTYPE) for s in (pages.k_scale, pages.v_scale))
    lengths = torch.tensor(c.lengths, dtype=torch.int32, device=DEVICE)
    return lambda: paged.flash_attn_with_kvcache(
        c.q, k, v, lengths, table, max_seqlen_q=1, k_scales_zeros=k_meta, v_scales_zeros=v_meta,
        quant_policy=QuantPolicy.INT8, kv_layout="bhsd",
    )  # fmt: skip


def flashinfer(c: Case, _folder: Path | None) -> Callable[[], Tensor]:
    """Where it is installed; it compiles itself at first. Over our own bf16 pages, which lie as its "HND" does."""
    if not REAL:
        raise PeerAbsent("compiles itself for a CUDA device only")
    if c.q_len > 1:
        raise PeerAbsent("timed for decode only")
    from flashinfer import BatchDecodeWithPagedKVCacheWrapper

    pages, _ = pages_of(c, DTYPE)
    used = [len(table) for table in c.tables]
    scratch = torch.empty(128 << 20, dtype=torch.uint8, device=DEVICE)
    wrapper = BatchDecodeWithPagedKVCacheWrapper(scratch, "HND", use_tensor_cores=True)
    lists = (
        [0, *accumulate(used)],
        [page for table in c.tables for page in table],
        [(n - 1) % PAGE + 1 for n in c.lengths],
    )
    places = [torch.tensor(values, dtype=torch.int32, device=DEVICE) for values in lists]
    sizes = (SHAPE.heads, SHAPE.kv_heads, SHAPE.head_dim, PAGE)
    wrapper.plan(*places, *sizes, q_data_type=DTYPE, kv_data_type=DTYPE)
    return lambda: wrapper.run(c.q, (pages.k, pages.v))


PEERS = {
    "SDPA, contiguous": sdpa,
    "flex_attention": flex,
    "LightLLM": lightllm,
    "LMDeploy int8": lmdeploy,
    "FlashInfer": flashinfer,
}


def cases() -> list[Case]:
    if not REAL:
        return [case("3 x 40", [40] * 3), case("uneven", [5, 33, 17]), case("2 x 8 over 24", [24] * 2, 8)]
    rng = Random(3)
    skewed = [max(64, int(rng.lognormvariate(7.2, 0.8))) for _ in range(64)]
    return [
        case("1 x 2048", [2048]),
        case("64 x 2048", [2048] * 64),
        case("16 x 8192", [8192] * 16),
        case("64, lognormal", skewed),
        case("63 x 1024 and 32768", [1024] * 63 + [32768]),
        case("64 x 8 drafts over 2048", [2048] * 64, 8),
        case("1 x 512 over 2048", [2048], 512),
    ]


def measure(report: Report, ceilings: Ceilings, folder: Path | None) -> None:
    int8_us: dict[str, tuple[float, int]] = {}
    for c in cases():
        us = {}
        for kind in (torch.int8, DTYPE):
            taken, off, nbytes = ours(c, kind)
            us[kind] = taken
            floor = nbytes / ceilings.read * 1e6
            name = str(kind).removeprefix("torch.")
            say(report, f"M3 {c.name}, {name}", taken, floor, off)
            if kind == torch.int8:
                int8_us[c.name] = (taken, nbytes)
        for peer, make in PEERS.items():
            what = f"M3 {c.name}, int8"
            try:
                taken, off = timed(c, make, folder)
                beside(report, what, peer, us[torch.int8], taken, off)
            except PeerAbsent as absent:
                report.absent(f"{what}: {peer} / ours", str(absent))
        if REAL and c.name == "64 x 2048":
            rate = int8_us[c.name][1] / us[torch.int8] * 1e6
            report.judge("M3 64 x 2048 int8, of copy bandwidth", rate / ceilings.copy, ">= 0.75")
            report.judge("M3 64 x 2048, ours bf16 / int8", us[DTYPE] / us[torch.int8], ">= 1.5")
        if REAL and c.name == "64, lognormal":
            even_us, even_bytes = int8_us["64 x 2048"]
            per_byte = us[torch.int8] / int8_us[c.name][1] / (even_us / even_bytes)
            report.judge("M3 uneven / even, per byte", per_byte, "<= 1.15")


def timed(
    c: Case, make: Callable[[Case, Path | None], Callable[[], Tensor]], folder: Path | None
) -> tuple[float, float]:
    try:
        run = make(c, folder)
        off = error(run().view(c.q.shape), c.expected())
        return micros(run), off
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, AttributeError, ImportError) as failed:
        raise PeerAbsent(f"{type(failed).__name__}: {str(failed)[:200]}") from failed
