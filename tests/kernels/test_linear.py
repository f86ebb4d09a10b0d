"""Linear layers of every scheme: fp64 oracle, and equal bits whatever shares the call."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from tenantry.kernels.quant import panels, schemes
from tenantry.kernels.quant.cpu import BytesLinear, PanelLinear
from tenantry.kernels.quant.linear import prepare_linear, prepare_reference
from tenantry.kernels.quant.schemes import GROUPS, SCHEMES, SchemeUnsupported
from tenantry.kernels.quant.tiles import MOST, MOST_CODE, PANEL, UNIT
from tenantry.kernels.testing import assert_close

SHAPES = [(4, 32), (96, 64), (1152, 896), (113, 913), (64, 4864), (4864 + 17, 96)]
ROWS = [1, 2, 3, 5, 6, 7, 9, 12, 13, 16, 65]


def exact(x: Tensor, weight: Tensor, bias: Tensor, scheme: str) -> Tensor:
    """The scheme's definition in fp64, from its own codes."""
    if scheme == "w8a8":
        codes, scale = schemes.quantise_channels(weight, MOST_CODE)
        tokens, factors = schemes.quantise_tokens(x)
        return (tokens.double() @ codes.double().T) * factors[:, None].double() * scale.double() + bias.double()
    if scheme == "w8a16":
        weight = schemes.quantise_channels(weight).codes.double() * schemes.quantise_channels(weight).scale[:, None]
    elif scheme == "w4a16":
        weight = schemes.widen_groups(schemes.quantise_groups(weight))
    return x.double() @ weight.double().T + bias.double()


def make(weight: Tensor, bias: Tensor | None, scheme: str) -> PanelLinear | BytesLinear:
    return BytesLinear(weight, bias) if scheme == "w8a8" else PanelLinear(weight, bias, scheme)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("out", "inputs"), SHAPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_product_matches_fp64(out: int, inputs: int, scheme: str, dtype: torch.dtype):
    weight, bias, x = torch.randn(out, inputs).to(dtype), torch.randn(out), torch.randn(max(ROWS), inputs)
    linear, without = make(weight, bias, scheme), make(weight, None, scheme)
    expected = exact(x, weight, bias, scheme)
    for rows in ROWS:
        assert_close(linear(x[:rows]), expected[:rows], dtype)
    assert_close(without(x[:2]), expected[:2] - bias.double(), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_has_the_same_bits_in_any_batch(scheme: str, dtype: torch.dtype):
    linear, x = make(torch.randn(400, 2080).to(dtype), torch.randn(400), scheme), torch.randn(150, 2080)
    together = linear(x)
    order = torch.randperm(150)
    assert torch.equal(linear(x[order]), together[order])
    for rows in (1, 2, 3, 6, 7, 12, 13, 16, 64, 149):
        assert torch.equal(linear(x[:rows]), together[:rows])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(scheme: str, bad: float):
    linear, x = make(torch.randn(64, 64).bfloat16(), None, scheme), torch.randn(7, 64)
    x[3, 5] = bad
    finite = linear(x).isfinite()
    assert not finite[3].any()
    assert finite[[0, 1, 2, 4, 5, 6]].all()


def test_nothing_is_written_beyond_the_rows_and_nothing_is_left():
    linear = PanelLinear(torch.randn(2 * PANEL, 4 * UNIT), None)
    for rows in range(1, MOST + 3):
        out, x = torch.full((rows + 2, 2 * PANEL), float("nan")), torch.randn(rows, 4 * UNIT)
        w, groups, scale, bias = linear._addresses
        sizes = (rows, 4 * UNIT, 16 * UNIT, 8 * PANEL)
        panels.multiply(32, w, groups, 0, x.data_ptr(), out[1:].data_ptr(), scale, bias, *sizes, 0, 2)
        assert out[1 : rows + 1].isfinite().all()
        assert out[[0, rows + 1]].isnan().all()


def test_extreme_bytes_do_not_saturate():
    """The largest codes of both sides, everywhere: pairs of products must still fit sixteen bits."""
    for sign in (1.0, -1.0):
        linear, x = BytesLinear(torch.full((32, 64), 3.0), None), torch.full((2, 64), sign)
        assert_close(linear(x), torch.full((2, 32), 192.0 * sign))


def test_slices_of_larger_tensors_are_read_where_they_are():
    whole, weight = torch.randn(9, 192), torch.randn(64, 96)
    for scheme in SCHEMES:
        linear = make(weight, None, scheme)
        assert torch.equal(linear(whole[:, 96:]), linear(whole[:, 96:].contiguous()))


@pytest.mark.parametrize(("scheme", "share"), [("w8a16", 0.52), ("w8a8", 0.53), ("w4a16", 0.33)])
def test_bytes_held_by_each_scheme(scheme: str, share: float):
    weight = torch.randn(1152, 896).bfloat16()
    assert prepare_linear(weight).weight_bytes <= 1.01 * weight.nbytes
    assert prepare_linear(weight, None, scheme).weight_bytes <= share * weight.nbytes


def test_many_slabs_are_quantised_as_one_matrix():
    weight, x = torch.randn(9000, 64), torch.randn(3, 64)
    for scheme in SCHEMES[1:]:
        assert_close(make(weight, None, scheme)(x), exact(x, weight, torch.zeros(9000), scheme))


@pytest.mark.parametrize("most", [127, 64])
def test_channels_are_rounded_half_to_even_with_a_floor(most: int):
    weight = torch.tensor([[most, 0.5, 1.5, -2.5], [0.0, 0, 0, 0], [2.0 * most, 1, 3, -5]])
    codes, scale = schemes.quantise_channels(weight, most)
    assert codes.tolist() == [[most, 0, 2, -2], [0, 0, 0, 0], [most, 0, 2, -2]]
    assert scale.tolist() == [1, pytest.approx(schemes.SMALLEST_SCALE), 2]


def test_tokens_that_are_not_finite_have_no_scale():
    _, scale = schemes.quantise_tokens(torch.tensor([[1.0, float("inf")], [127.0, 3], [float("nan"), 0], [0, 0]]))
    assert scale.isnan().tolist() == [True, False, True, False]
    assert scale[1] == 1


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_no_worse_than_half_a_step(group: int):
    weight = torch.randn(64, 256)
    found = schemes.quantise_groups(weight, group)
    parts = weight.view(64, -1, group)
    step = (parts.amax(2) - parts.amin(2)) / 15
    error = (schemes.widen_groups(found) - weight).view(64, -1, group).square().mean(2).sqrt()
    assert found.codes.max() <= 15
    assert (error <= 0.5 * step).all()
    assert error.mean() < 0.31 * step.mean()  # a uniform error has 1/sqrt(12) of a step


def test_a_group_of_sixteen_levels_is_kept_exactly():
    weight = (torch.arange(64) % 16 * 0.25 - 1).view(2, 32)
    found = schemes.quantise_groups(weight, 32)
    assert found.codes.tolist() == (torch.arange(64) % 16).view(2, 32).tolist()
    assert torch.equal(schemes.widen_groups(found), weight)
    assert torch.equal(schemes.widen_groups(schemes.quantise_groups(weight[:, :20], 32)), weight[:, :20])


def test_unknown_schemes_and_groups_are_refused():
    with pytest.raises(SchemeUnsupported, match="groups of 32, 64, 128, not 48"):
        schemes.quantise_groups(torch.randn(8, 96), 48)
    for prepare in (prepare_linear, prepare_reference):
        with pytest.raises(SchemeUnsupported, match="w2a2"):
            prepare(torch.randn(8, 64), None, "w2a2")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_reference_follows_the_definition(scheme: str):
    weight, bias, x = torch.randn(48, 96), torch.randn(48), torch.randn(3, 96)
    expected = exact(x, weight, bias, scheme)
    if scheme == "w8a8":  # its own codes are finer than those that our tiles take
        codes, factors = schemes.quantise_tokens(x)
        weights = schemes.quantise_channels(weight)
        expected = codes.double() @ weights.codes.double().T * factors[:, None] * weights.scale + bias
    assert_close(prepare_reference(weight, bias, scheme)(x), expected)
