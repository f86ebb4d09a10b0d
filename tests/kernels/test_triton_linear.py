"""Quantised products in Triton, through the interpreter without a GPU (fp16, fp32: its bf16 products are wrong)."""

import pytest
import torch
from torch import Tensor

from tenantry.kernels.quant import gpu, schemes
from tenantry.kernels.quant.linear import prepare_triton
from tenantry.kernels.testing import assert_close

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float16, torch.float32]
SHAPES = [(8, 32), (80, 160), (113, 304)]
REFERENCES = {"w8a16": schemes.linear_w8a16, "w8a8": schemes.linear_w8a8, "w4a16": schemes.linear_w4a16}


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("out", "inputs"), SHAPES)
@pytest.mark.parametrize("scheme", REFERENCES)
def test_products_match_the_schemes_definition(scheme: str, out: int, inputs: int, dtype: torch.dtype):
    weight, bias = values(out, inputs) / 9, values(out)
    linear = prepare_triton(weight, bias, scheme)
    quantise = schemes.quantise_groups if scheme == "w4a16" else schemes.quantise_channels
    for rows in (1, 17):
        x = values(rows, inputs, dtype=dtype)
        expected = REFERENCES[scheme](x.float(), quantise(weight), bias)
        assert_close(linear(x).float(), expected, dtype)
    assert linear(x[:0]).shape == (0, out)


@pytest.mark.parametrize("scheme", ["w8a16", "w4a16"])
def test_many_rows_are_multiplied_with_the_same_matrix(scheme: str):
    weight, x = values(40, 96), values(gpu.FEW + 1, 96)
    linear = prepare_triton(weight, values(40), scheme)
    assert_close(linear(x)[: gpu.FEW], linear(x[: gpu.FEW]))


@pytest.mark.parametrize("scheme", REFERENCES)
def test_a_row_has_the_same_bits_in_any_company(scheme: str):
    linear, x = prepare_triton(values(72, 320), values(72), scheme), values(20, 320, dtype=torch.float16)
    together, order = linear(x), torch.randperm(20)
    assert torch.equal(linear(x[order]), together[order])
    assert torch.equal(linear(x[7:8]), together[7:8])


@pytest.mark.parametrize("splits", [1, 3])
def test_planes_are_all_written(monkeypatch, splits: int):
    """Fewer or more planes give the same sums; none is read that was not written."""
    monkeypatch.setattr(gpu, "MOST_PLANES", splits)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    weight, x = values(70, 640), values(5, 640)
    for scheme in ("w8a16", "w4a16"):
        linear = gpu.FewRowsLinear(weight, None, scheme)
        assert linear.splits == splits
        assert_close(linear(x), x.double() @ linear.widened(torch.float64).T)


@pytest.mark.parametrize("group", schemes.GROUPS)
def test_pairs_of_groups_are_packed_and_unpacked(group: int):
    codes = torch.randint(0, 16, (5, 3 * group), dtype=torch.uint8)
    packed = gpu.pack_pairs(codes, group)
    assert packed.shape == (5, 2 * group)
    assert torch.equal(gpu.unpack_pairs(packed, 3 * group, group), codes)


def test_a_token_that_is_not_finite_stays_alone():
    linear, x = prepare_triton(values(16, 32), None, "w8a8"), values(3, 32)
    x[1, 4] = float("inf")
    finite = linear(x).isfinite()
    assert not finite[1].any()
    assert finite[[0, 2]].all()
