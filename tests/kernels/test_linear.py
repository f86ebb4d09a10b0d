"""Linear layers: fp64 oracle, and equal bits whatever shares the call."""

import pytest
import torch

from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.quant.linear import TiledLinear, prepare_linear, prepare_reference
from tenantry.kernels.testing import assert_close

SHAPES = [(4, 32), (96, 64), (1152, 896), (113, 913), (64, 4864), (4864 + 17, 96)]
tiled = pytest.mark.skipif(not cpu_capability().numba, reason="numba is not installed")


@tiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("out", "inputs"), SHAPES)
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 16, 65])
def test_product_matches_fp64(out: int, inputs: int, rows: int, dtype: torch.dtype):
    weight, bias, x = torch.randn(out, inputs).to(dtype), torch.randn(out), torch.randn(rows, inputs)
    expected = x.double() @ weight.double().T + bias.double()
    assert_close(TiledLinear(weight, bias)(x), expected, dtype)
    assert_close(TiledLinear(weight, None)(x), expected - bias.double(), dtype)


@tiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_row_has_the_same_bits_in_any_batch(dtype: torch.dtype):
    linear, x = TiledLinear(torch.randn(400, 2080).to(dtype), torch.randn(400)), torch.randn(150, 2080)
    together = linear(x)
    order = torch.randperm(150)
    assert torch.equal(linear(x[order]), together[order])
    for rows in (1, 3, 6, 16, 64, 149):
        assert torch.equal(linear(x[:rows]), together[:rows])


@tiled
def test_nan_in_one_row_stays_in_it():
    linear, x = TiledLinear(torch.randn(64, 64).bfloat16(), None), torch.randn(7, 64)
    x[3, 5] = float("nan")
    bad = linear(x).isnan()
    assert bad[3].all()
    assert not bad[[0, 1, 2, 4, 5, 6]].any()


def test_weights_are_kept_without_a_copy_where_sizes_allow():
    weight = torch.randn(64, 64).bfloat16()
    linear = prepare_linear(weight)
    assert linear.weight_bytes == weight.nbytes
    assert linear.weight.data_ptr() == weight.data_ptr()


def test_the_reference_computes_in_fp32():
    weight, x = torch.randn(48, 80).bfloat16(), torch.randn(3, 80)
    assert_close(prepare_reference(weight)(x), x.double() @ weight.double().T)
