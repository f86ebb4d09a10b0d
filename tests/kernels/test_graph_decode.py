"""A whole decode step from a graph, on the device: the same bits as run as it comes, whatever mix was captured.

Without a device the graph is a stand-in that calls the captured step again, through Triton's interpreter.
"""

import dataclasses

import pytest
import torch

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.layout import GPU_PACKING, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import REFERENCE, select_ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, Output, lora_sites
from tenantry.runtime.model.forward import Captured, CudaCapture, Eager, Graphed
from tenantry.runtime.model.rope import Rope
from tenantry.runtime.model.weights import DecoderWeights, LayerWeights
from tenantry.runtime.plan import Draw, Row

pytestmark = pytest.mark.triton
REAL = torch.cuda.is_available()
DEVICE, LAYERS, MOST = ("cuda", 3, 6) if REAL else ("cpu", 1, 2)
PAGE, LONGEST = 8, 64
DRAW = Draw(Sampling(max_tokens=1), 0, 0, 0, ())
CONFIG = ModelConfig(
    family="llama", layers=LAYERS, hidden=32, intermediate=48, heads=2, kv_heads=1, head_dim=16, vocab=50,
    rms_eps=1e-6, rope=Rope(), qkv_bias=False, o_bias=False, mlp_bias=False, qk_norm=False, tied=False,
    max_context=LONGEST, end_tokens=(),
)  # fmt: skip


@torch.inference_mode()
def again(run) -> Captured:
    output = Output(*(t.clone() for t in run()))

    @torch.inference_mode()
    def replay() -> None:
        for mine, new in zip(output, run(), strict=True):
            mine.copy_(new)

    return Captured(replay, output)


class Slots:
    """Adapters whose digest is their slot."""

    def __init__(self, table: LoraTable) -> None:
        self.table = table

    def slots(self, digests) -> list[int | None]:
        return [None if digest is None else digest[0] for digest in digests]

    def plan(self, digests, q_lens):
        return self.table.plan(self.slots(digests), q_lens) if any(digests) else None


@pytest.fixture(scope="module")
def eager():
    torch.manual_seed(4)
    dtype = torch.bfloat16 if REAL else torch.float32
    ops = select_ops("cuda")
    if not REAL:
        ops = dataclasses.replace(ops, device="cpu", prepare_linear=REFERENCE.prepare_linear)
    sites = lora_sites(CONFIG)

    def vector() -> torch.Tensor:
        return torch.rand(CONFIG.hidden, device=DEVICE) + 0.5

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns) * columns**-0.5).to(DEVICE, dtype)

    def linear(site: str):
        return ops.prepare_linear(matrix(sites[site].out_features, sites[site].in_features), None)

    layers = tuple(
        LayerWeights(vector(), linear("qkv"), None, None, linear("o"), vector(), linear("gate_up"), linear("down"))
        for _ in range(LAYERS)
    )
    head = ops.prepare_linear(matrix(CONFIG.vocab, CONFIG.hidden), None)
    weights = DecoderWeights(matrix(CONFIG.vocab, CONFIG.hidden), layers, vector(), head)
    scales = torch.float16 if REAL else torch.float32
    pool = KvPool(PageLayout(1, 16, PAGE, scale_dtype=scales), LAYERS, 64, DEVICE)
    table = LoraTable(LAYERS, sites, dtype, DEVICE, GPU_PACKING)
    for slot, rank in enumerate((8, 16)):
        modules = {
            (layer, site, part): SliceWeights(matrix(rank, shape.in_features), matrix(width, rank), rank, 0.7)
            for layer in range(LAYERS)
            for site, shape in sites.items()
            for part, width in enumerate(shape.slices)
        }
        table.set_slot(slot, table.prepare(modules))
    made = Eager(Decoder(CONFIG, weights, ops, pool.layers, table, LONGEST, dtype), Slots(table), PAGE)
    for row in range(MOST):  # what earlier steps left in the pages
        tokens = torch.randint(0, CONFIG.vocab, (20,)).tolist()
        made([Row(row, tokens, 0, range(1 + 8 * row, 9 + 8 * row), None, None)])
    return made


def rows_of(*what: tuple[int, int, int | None]) -> list[Row]:
    """(token, position, slot) of each row; every row has eight pages of its own."""
    return [
        Row(i, (token,), at, range(1 + 8 * i, 9 + 8 * i), None if slot is None else bytes([slot]), DRAW)
        for i, (token, at, slot) in enumerate(what)
    ]


MIXES = [rows_of((5, 19, None), (9, 4, 1)), rows_of((7, 20, 0)), rows_of((9, 3, None), (2, 20, None))]
if REAL:
    MIXES += [rows_of((1, 20, 1), (2, 12, 1), (3, 16, 0), (4, 15, None), (5, 8, 1)), rows_of((8, 1, 1), (6, 20, 0))]


def test_replays_give_the_bits_of_eager_steps(eager):
    graphs = Graphed(eager, MOST, LONGEST, CudaCapture() if REAL else again)
    for mix in (*MIXES, *reversed(MIXES)) if REAL else MIXES:
        expected = [t.clone() for t in eager(mix)]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(graphs(mix), expected, strict=True))
        assert expected[0].isfinite().all()
