"""The paths of processors that this one is not: AMX through oneDNN, 256-bit registers, VNNI."""

import dataclasses
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba")

from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.quant import linear as module
from tenantry.kernels.quant.linear import TorchLinear, prepare_linear
from tenantry.kernels.quant.onednn import OneDnnLinear

ROOT = Path(__file__).resolve().parents[2]
HASWELL = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.2,+cx16,+movbe"


@pytest.fixture
def amx(monkeypatch):
    """A processor that says it has AMX: oneDNN emulates bf16 on others, slowly and rightly."""
    found = dataclasses.replace(cpu_capability(), amx_bf16=True)
    monkeypatch.setattr(module, "cpu_capability", lambda: found)


def test_amx_processors_get_prepacked_bf16(amx):
    weight, bias, x = torch.randn(96, 64).bfloat16(), torch.randn(96), torch.randn(5, 64)
    linear = prepare_linear(weight, bias)
    assert isinstance(linear, OneDnnLinear)
    expected = x @ weight.float().T + bias
    assert (linear(x) - expected).abs().max() < 0.02 * expected.abs().max()
    assert linear.weight_bytes == weight.nbytes
    assert not isinstance(prepare_linear(weight, bias, "w8a16"), OneDnnLinear)


@pytest.mark.parametrize("fault", ["wrong", "nan", "absent"])
def test_a_prepacked_product_that_fails_its_check_is_not_used(amx, fault: str, monkeypatch, caplog):
    def broken(self, x):
        if fault == "absent":
            raise RuntimeError("no such operator")
        return torch.full((len(x), 96), float("nan") if fault == "nan" else 1.0)

    monkeypatch.setattr(OneDnnLinear, "__call__", broken)
    with caplog.at_level(logging.WARNING):
        assert isinstance(prepare_linear(torch.randn(96, 64).bfloat16()), TorchLinear)
    assert "torch's plain one" in caplog.text


def run(code: str, name: str, features: str) -> str:
    """Python in a process whose kernels are compiled for another processor."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "PYTHONPATH": str(ROOT / ".src"),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx2"), reason="the processor has no AVX2")
def test_256_bit_registers_compute_the_same():
    code = """
import torch
from tenantry.kernels.quant import schemes, tiles
from tenantry.kernels.quant.cpu import BytesLinear, PanelLinear
from tenantry.kernels.testing import assert_close
assert (tiles.LANES, tiles.FOURS) == (8, False)
torch.manual_seed(0)
weight, bias, x = torch.randn(113, 224).bfloat16(), torch.randn(113), torch.randn(15, 224)
channels = schemes.quantise_channels(weight)
for rows in (1, 2, 3, 5, 7, 15):
    some = x[:rows]
    assert_close(PanelLinear(weight, bias)(some), some.double() @ weight.double().T + bias)
    assert_close(PanelLinear(weight.float(), bias)(some), some.double() @ weight.double().T + bias)
    assert_close(PanelLinear(weight, bias, "w8a16")(some), schemes.linear_w8a16(some, channels, bias))
    groups = schemes.quantise_groups(weight)
    assert_close(PanelLinear(weight, bias, "w4a16")(some), schemes.linear_w4a16(some, groups, bias))
    small = schemes.quantise_channels(weight, tiles.MOST_CODE)
    assert_close(BytesLinear(weight, bias)(some), schemes.linear_w8a8(some, small, bias))
print("done")
"""
    assert run(code, "haswell", HASWELL) == "done\n"


def test_vnni_is_one_instruction_for_four_products():
    """Compiled only: this processor may not have it."""
    code = """
from numba import njit, types
from tenantry.kernels.quant import panels, tiles
assert tiles.MOST_CODE == 127
signature = types.void(*[types.int64] * 12)
fresh = njit(panels.multiply_bytes.py_func)  # machine code from the cache cannot be read
fresh.compile(signature)
text = "".join(fresh.inspect_asm().values())
print("vpdpbusd" in text, "vpmaddubsw" in text)
"""
    features = HASWELL + ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,+avx512vnni"
    assert run(code, "cascadelake", features) == "True False\n"
