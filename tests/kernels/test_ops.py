"""The door: explicit choice of device, one signature for every backend, a warm start that compiles nothing later."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.ops import select_ops, warm_up
from tenantry.kernels.quant.schemes import SCHEMES
from tenantry.kernels.timing import median_us, read_bandwidth


def test_unknown_devices_are_refused():
    with pytest.raises(ValueError, match="tpu"):
        select_ops("tpu")


def test_the_reference_is_taken_by_name():
    assert select_ops("reference").name == "reference"
    assert select_ops("cpu").name == ("cpu" if cpu_capability().numba else "reference")


def test_without_numba_the_cpu_is_the_reference_and_says_so():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numba' else real(name, *a)\n"
        "from tenantry.kernels.ops import select_ops, warm_up\n"
        "import torch; ops = select_ops('cpu'); warm_up(select_ops('reference'), torch.float32, torch.int8)\n"
        "assert ops.name == 'reference', ops.name"
    )
    root = Path(__file__).resolve().parents[2] / ".src"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kv", [torch.int8, torch.float32, torch.bfloat16])
def test_warming_up_runs_every_operation(ops, kv: torch.dtype):
    warm_up(ops, torch.bfloat16, kv)


def test_warming_up_tells_what_it_is_at_and_how_much_is_left():
    told = []
    warm_up(select_ops("reference"), torch.float32, torch.int8, told=lambda *one: told.append(one))
    names, done, totals = zip(*told, strict=True)
    assert list(done) == list(range(len(told)))
    assert set(totals) == {len(told) - 1}
    assert {"attention", "linear and LoRA", "sample"} <= set(names)
    assert names[-1] == ""


@pytest.mark.skipif(not cpu_capability().numba, reason="numba is not installed")
def test_nothing_is_compiled_after_warming_up(ops):
    """Other shapes, slices of larger tensors, one row or many: the same machine code."""
    from tenantry.kernels.attention import cpu as attention
    from tenantry.kernels.attention import cpu_write
    from tenantry.kernels.attention.layout import PageLayout
    from tenantry.kernels.attention.plan import AttentionPlan
    from tenantry.kernels.elementwise import cpu as elementwise
    from tenantry.kernels.lora import cpu as lora
    from tenantry.kernels.lora.layout import SiteShape, SliceWeights
    from tenantry.kernels.lora.table import LoraTable
    from tenantry.kernels.quant import panels

    for scheme in SCHEMES:
        warm_up(ops, torch.bfloat16, torch.int8, scheme)
    warm_up(ops, torch.float32, torch.int8)
    kernels = (attention.all_units, cpu_write.rotate_all, cpu_write.rotate_part, lora.all_tiles)
    kernels += (panels.multiply_all, panels.multiply_bytes_all, panels.to_bytes_all)
    kernels += (elementwise.norm_all, elementwise.silu_all)
    before = [len(k.signatures) for k in kernels]
    for rows in (1, 7):
        pages = [PageLayout(2, 64, 16).allocate(3) for _ in range(2)][1]
        fused = torch.randn(rows, 8, 64)
        for many in (rows, 4096):
            ops.silu_mul(ops.add_norm(torch.randn(many, 66), torch.randn(many, 66), torch.rand(66), 1e-5))
            angle, slots = torch.randn(many, 64), torch.arange(many) % 48
            ops.rotate_and_write(torch.randn(many, 6 * 64), angle, angle, pages, slots, None)
        ops.write_kv(fused[:, 4:6], fused[:, 6:], pages, torch.arange(rows))
        ops.attention(fused[:, :4], pages, AttentionPlan.build([rows], [rows], [[0]], 16), 0.1)
        for dtype in (torch.bfloat16, torch.float32):
            linear = ops.prepare_linear(torch.randn(4096, 96, dtype=dtype), torch.randn(4096))
            linear(torch.randn(rows, 96))
            for scheme in SCHEMES:
                ops.prepare_linear(torch.randn(4096, 96, dtype=dtype), None, scheme)(torch.randn(rows, 96))
                ops.prepare_linear(torch.randn(64, 96, dtype=dtype), None, scheme)(torch.randn(128 * rows, 96))
            table = LoraTable(3, {"a": SiteShape(96, (4096,)), "b": SiteShape(64, (32, 32))}, dtype)
            module = SliceWeights(torch.randn(8, 96), torch.randn(4096, 8), 8, 1.0)
            table.set_slot(9, table.prepare({(1, "a", 0): module}))
            for many in (rows, 512):
                y = torch.zeros(many, 4096)
                ops.apply_lora(torch.randn(many, 96), y, 1, "a", table.plan([9], [many]), table)
    assert [len(k.signatures) for k in kernels] == before


def test_timing_measures_something():
    assert 0 < median_us(lambda: sum(range(1000)), 0.01) < 1e6
    assert read_bandwidth(16) > 1e8
