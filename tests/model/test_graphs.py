"""Decode from graphs gives what eager decode gives: any mix in one bucket's buffers, and nothing stored by padding.

The graph here is a stand-in that calls the captured function again: same buffers, same kernels (through Triton's
interpreter without a GPU), so a value that was frozen at capture shows.
"""

import dataclasses

import pytest
import torch

from tenantry.adapters.store import LocalStore
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.layout import GPU_PACKING, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import REFERENCE, select_ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, Output, lora_sites
from tenantry.runtime.model.errors import AdapterNotResident
from tenantry.runtime.model.forward import Captured, CudaCapture, Eager, Graphed, buckets
from tenantry.runtime.model.lora import Adapters
from tenantry.runtime.model.weights import load_weights
from tenantry.runtime.plan import Draw, Row

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAGE, LONGEST = 4, 40
DRAW = Draw(Sampling(max_tokens=1), 0, 0, 0, ())


class Again:
    """A graph that computes into the memory of its first output by calling what it captured."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    @torch.inference_mode()
    def __call__(self, run) -> Captured:
        self.captures += 1
        output = Output(*(t.clone() for t in run()))

        @torch.inference_mode()
        def replay() -> None:
            self.replays += 1
            for mine, new in zip(output, run(), strict=True):
                mine.copy_(new)

        return Captured(replay, output)


@pytest.fixture(scope="module")
def model(bases, tmp_path_factory):
    """decoder over Triton's kernels, and three adapters of different ranks by name."""
    triton = select_ops("cuda")
    ops = triton if DEVICE == "cuda" else dataclasses.replace(triton, device="cpu", prepare_linear=REFERENCE.prepare_linear)
    directory = bases("qwen2")
    config = ModelConfig.from_directory(directory)
    weights = load_weights(directory, config, torch.float32, ops)
    pool = KvPool(PageLayout(config.kv_heads, config.head_dim, PAGE), config.layers, 64, DEVICE)
    table = LoraTable(config.layers, lora_sites(config), torch.float32, DEVICE, GPU_PACKING)
    adapters = Adapters(LocalStore(tmp_path_factory.mktemp("none")), table, b"")
    for slot, rank in enumerate((3, 8, 17)):
        adapters._slots[bytes([slot])] = slot
        table.set_slot(slot, table.prepare(adapter(config, rank)))
    yield Decoder(config, weights, ops, pool.layers, table, LONGEST, torch.float32), adapters, pool
    adapters.close()


def adapter(config, rank: int):
    noise = torch.Generator().manual_seed(rank)
    return {
        (layer, site, part): SliceWeights(
            torch.randn(rank, shape.in_features, generator=noise).to(DEVICE) / 8,
            torch.randn(width, rank, generator=noise).to(DEVICE) / 4,
            rank,
            0.7,
        )
        for layer in range(config.layers)
        for site, shape in lora_sites(config).items()
        for part, width in enumerate(shape.slices)
    }


def graphed(model, capture=None, most: int = 5):
    decoder, adapters, _ = model
    eager = Eager(decoder, adapters, PAGE)
    return eager, Graphed(eager, most, LONGEST, capture or (CudaCapture() if DEVICE == "cuda" else Again()))


def rows_of(*what: tuple[int, int, int | None], first_page: int = 1) -> list[Row]:
    """(token, position, slot) of each row; every row has ten pages of its own."""
    return [
        Row(i, (token,), start, range(first_page + 10 * i, first_page + 10 * i + 10), None if slot is None else bytes([slot]), DRAW)
        for i, (token, start, slot) in enumerate(what)
    ]


@pytest.fixture(scope="module")
def filled(model):
    """Pages as forty tokens of five sequences leave them."""
    decoder, adapters, pool = model
    noise = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 101, (5, LONGEST), generator=noise).tolist()
    prompts = [Row(i, tokens[i], 0, range(1 + 10 * i, 11 + 10 * i), None, None) for i in range(5)]
    Eager(decoder, adapters, PAGE)(prompts)
    return pool


MIXES = [
    rows_of((5, 17, None), (9, 4, 1), (77, 39, 2)),
    rows_of((5, 17, 0), (9, 3, 0), (77, 0, 0), (3, 8, 0)),
    rows_of((50, 1, 2)),
    rows_of((50, 1, None), (51, 35, None)),
    rows_of((1, 20, 2), (2, 21, 1), (3, 22, 0), (4, 23, None), (5, 24, 2)),
]


@pytest.mark.gpu
def test_replays_of_any_mix_give_what_eager_gives(model, filled):
    eager, graphs = graphed(model)
    for mix in (*MIXES, *reversed(MIXES)):
        expected = eager(mix)
        wanted = [t.clone() for t in expected]
        for mine, theirs in zip(graphs(mix), wanted, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.gpu
def test_padding_stores_nothing_and_shows_in_nothing(model, filled):
    capture = Again()
    _, graphs = graphed(model, capture)
    before = [(layer.k.clone(), layer.v.clone()) for layer in filled.layers]
    output = graphs(MIXES[1][:3])
    assert output.logits.shape[0] == output.finite.shape[0] == 3
    own = torch.zeros(64, PAGE, dtype=torch.bool, device=DEVICE)
    for row in MIXES[1][:3]:
        own[row.pages[row.start // PAGE], row.start % PAGE] = True
    for layer, (k, v) in zip(filled.layers, before, strict=True):
        for mine, old in ((layer.k, k), (layer.v, v)):
            changed = (mine != old).any(-1).any(1)
            assert not (changed & ~own).any()
            assert changed[own].any()


def test_graphs_are_captured_before_they_are_needed_and_once(model, filled):
    capture = Again()
    _, graphs = graphed(model, capture)
    assert capture.captures == 2 * len(buckets(5))
    for mix in MIXES:
        graphs(mix)
    assert capture.captures == 2 * len(buckets(5))
    assert capture.replays == 2 * len(buckets(5)) + len(MIXES)


def test_a_new_adapter_is_seen_and_one_that_outgrows_the_tables_captures_anew(model, filled):
    decoder, adapters, _ = model
    capture = Again()
    eager, graphs = graphed(model, capture)
    table, before = adapters.table, capture.captures
    for slot, rank in ((1, 5), (9, 16), (3, 200)):
        table.set_slot(slot, table.prepare(adapter(decoder.config, rank)))
        adapters._slots[bytes([slot])] = slot
        mix = rows_of((9, 12, slot), (9, 12, None))
        assert torch.equal(graphs(mix).logits, eager(mix).logits)
    assert capture.captures > before
    for slot in (9, 3):
        table.clear_slot(slot)
        del adapters._slots[bytes([slot])]
    with pytest.raises(AdapterNotResident):
        graphs(rows_of((9, 12, 9)))


def test_steps_that_are_no_decode_run_as_they_come(model, filled):
    capture = Again()
    eager, graphs = graphed(model, capture, most=2)
    replays = capture.replays
    prompt = Row(0, (4, 5, 6), 0, range(1, 11), None, DRAW)
    part = Row(0, (4,), 0, range(1, 11), None, None)
    for rows in ([prompt], [part], [*MIXES[3], prompt], MIXES[4]):
        assert torch.equal(graphs(rows).logits, eager(rows).logits)
    assert capture.replays == replays


def test_rows_go_to_the_next_bucket():
    assert buckets(1) == (1,)
    assert buckets(5) == (1, 2, 4, 8)
    assert buckets(64) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert buckets(65)[-2:] == (64, 96)
