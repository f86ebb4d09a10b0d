"""The arithmetic of floors, against numbers worked out by hand."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.floor import Machine, Size, Stored, decode_seconds, ideal_seconds, prefill_seconds
from benchmarks.peer import whole_window
from benchmarks.variants import VARIANTS, Variant
from benchmarks.workload import Call, Workload

# 0.5B shape of the workloads: 24 layers of hidden 896, intermediate 4864, 14 and 2 heads of 64, vocabulary 32,000.
SHAPE = Size(
    layers=24 * (896 * 896 * 2 + 128 * 896 * 2 + 3 * 4864 * 896),
    head=32000 * 896,
    rank=24 * ((896 + 896) * 2 + (896 + 128) * 2 + (896 + 4864) * 3),
    attention=4 * 24 * 14 * 64,
    kv_token=24 * 2 * 2 * 68,
)
MACHINE = Machine("test", 2, {"slow": 1e9, "fast": 25e9}, {"fp32": 2e12, "bf16": 1e9})


def calls(name: str, adapters: list[str | None], prompt: int = 128, out: int = 64, concurrency: int = 16) -> Workload:
    made = (Call(name, a, tuple(range(prompt)), out, f"{name}-{i}") for i, a in enumerate(adapters))
    return Workload(name, tuple(made), concurrency)


def test_a_machine_is_its_best_methods():
    assert (MACHINE.bytes_per_second, MACHINE.flops) == (25e9, 2e12)


def test_the_limits_of_a_run_are_the_mean_of_those_before_and_after_it():
    after = Machine("test", 2, {"slow": 2e9, "fast": 15e9}, {"fp32": 1e12, "bf16": 1e9})
    limits = MACHINE.between(after)
    assert limits.reads == {"slow": 1.5e9, "fast": 20e9}
    assert limits.flops == 1.5e12


def test_a_size_is_read_from_the_files(tmp_path):
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 100}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = {
        "model.embed_tokens.weight": torch.zeros(100, 8),
        "lm_head.weight": torch.zeros(100, 8),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(12, 8),
        "model.layers.0.mlp.up_proj.bias": torch.zeros(12),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert Size.of(tmp_path) == Size(layers=96, head=800, rank=20, attention=4 * 4 * 2, kv_token=2 * 2 * (2 + 4))


def test_a_decode_step_reads_every_byte_once():
    assert round((SHAPE.layers + SHAPE.head) * 2 / 1e6) == 773  # megabytes, as the workloads' own description says
    assert SHAPE.rank * 2 / 1e6 == pytest.approx(1.1, abs=0.01)
    alone = decode_seconds(MACHINE, SHAPE, 1, 0, 0, 160, Stored())
    assert alone == pytest.approx((2 * 386.6e6 + 160 * SHAPE.kv_token) / 25e9, rel=1e-3)
    quantised = decode_seconds(MACHINE, SHAPE, 1, 0, 0, 0, Stored(weight=1.0))
    assert quantised == pytest.approx(386.6e6 / 25e9, rel=1e-3)
    with_adapters = decode_seconds(MACHINE, SHAPE, 16, 300, 480, 160, Stored())
    without = decode_seconds(MACHINE, SHAPE, 16, 0, 0, 160, Stored())
    assert with_adapters - without == pytest.approx(300 * SHAPE.rank * 2 / 25e9)


def test_a_slow_processor_bounds_a_step_by_its_products():
    slow = Machine("test", 2, {"read": 1e12}, {"fp32": 1e11})
    work = 2 * 16 * 386.6e6 + 2 * 480 * SHAPE.rank + 16 * 160 * SHAPE.attention
    assert decode_seconds(slow, SHAPE, 16, 300, 480, 160, Stored()) == pytest.approx(work / 1e11, rel=1e-3)


def test_a_prefill_computes_the_head_once():
    attention = SHAPE.attention * 128 * 128 / 2
    assert prefill_seconds(MACHINE, SHAPE, 128, 0) == pytest.approx(
        (2 * SHAPE.layers * 128 + 2 * SHAPE.head + attention) / 2e12
    )
    share = prefill_seconds(MACHINE, SHAPE, 128, 30) / prefill_seconds(MACHINE, SHAPE, 128, 0) - 1
    assert share == pytest.approx(30 * SHAPE.rank / SHAPE.layers, rel=0.02)


def test_the_whole_run_adds_prompts_and_windows_of_steps():
    ranks = {"a": 8, "b": 64}
    workload = calls("W1", [*["a", "b"] * 8, None])
    full = decode_seconds(MACHINE, SHAPE, 16, 72, 8 * 72, 160, Stored())
    lone = decode_seconds(MACHINE, SHAPE, 1, 0, 0, 160, Stored())
    prompts = 8 * prefill_seconds(MACHINE, SHAPE, 128, 8) + 8 * prefill_seconds(MACHINE, SHAPE, 128, 64)
    prompts += prefill_seconds(MACHINE, SHAPE, 128, 0)
    assert ideal_seconds(MACHINE, SHAPE, workload, ranks) == pytest.approx(63 * (full + lone) + prompts)


def test_the_limit_agrees_with_what_others_worked_out():
    """396 tok/s for W2 at 28 GB/s and 2.2 TFLOP/s, with bf16 pages and the head over every prompt token."""
    machine = Machine("test", 2, {"read": 28e9}, {"gemm": 2.2e12})
    workload = calls("W2", [None] * 64)
    assert 64 * 64 / ideal_seconds(machine, SHAPE, workload, {}) == pytest.approx(396, rel=0.08)


def test_the_first_calls_bound_how_many_are_in_flight():
    few = calls("W1", [None] * 64).first(4)
    assert (len(few.calls), few.concurrency) == (4, 4)


def test_a_peers_window_is_extended_at_its_median_step():
    assert whole_window([2.0, 2.5, 3.0, 9.0], 4) == 9.0
    assert whole_window([2.0, 2.5, 3.0, 9.0], 10) == pytest.approx(9.0 + 6 * 0.5)
    with pytest.raises(ValueError, match="three"):
        whole_window([1.0, 2.0], 64)


def test_a_variant_says_what_it_stores():
    assert [v.stored for v in VARIANTS] == [Stored(2, 2), Stored(1, 1)]
    assert Variant.parse("tiny=--weights w4a16").stored == Stored(0.5, 2.0)
    assert Variant.parse("plain=").options == ()
    with pytest.raises(ValueError, match="name=options"):
        Variant.parse("--weights w8a16")
    assert not math.isnan(VARIANTS[0].stored.weight)
