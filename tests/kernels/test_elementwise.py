"""Norm and SiLU on both backends: against float64, alone and in company, where rows end beside a vector's width."""

import pytest
import torch

from tenantry.kernels.elementwise import cpu, gpu, reference
from tenantry.kernels.testing import assert_close, poisoned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = [
    (cpu, "cpu", torch.float32),
    *(pytest.param(gpu, DEVICE, dtype, marks=pytest.mark.triton) for dtype in (torch.float32, torch.float16)),
]
SIZES = [(1, 1), (3, 31), (2, 32), (5, 33), (4, 256), (0, 64), (1, 1500)]
EPS = 1e-6


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.dtype == expected.dtype
    assert_close(actual.float().cpu(), expected.float().cpu(), actual.dtype)


@pytest.mark.parametrize(("backend", "device", "dtype"), BACKENDS, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize(("rows", "width"), SIZES)
@pytest.mark.parametrize("adds", [False, True])
def test_norm_matches_the_reference(backend, device: str, dtype: torch.dtype, rows: int, width: int, adds: bool):
    hidden, delta = torch.randn(2, rows, width, device=device).to(dtype) * 3
    weight = torch.rand(width, device=device) + 0.5
    mine, theirs = hidden.clone(), hidden.clone()
    close(
        backend.add_norm(mine, delta if adds else None, weight, EPS),
        reference.add_norm(theirs, delta if adds else None, weight, EPS),
    )
    assert torch.equal(mine, theirs)
    assert not adds or not rows or not torch.equal(mine, hidden)


@pytest.mark.parametrize(("backend", "device", "dtype"), BACKENDS, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_silu_matches_the_reference(backend, device: str, dtype: torch.dtype, rows: int, width: int):
    gate_up = torch.randn(rows, 2 * width, device=device).to(dtype) * 5
    close(backend.silu_mul(gate_up), reference.silu_mul(gate_up))


@pytest.mark.parametrize(("backend", "device", "dtype"), BACKENDS[:2], ids=["cpu", "gpu"])
def test_a_row_has_the_same_bits_in_any_company_and_nan_stays_in_its_row(backend, device: str, dtype: torch.dtype):
    hidden, delta = torch.randn(2, 6, 97, device=device)
    gate_up, weight = torch.randn(6, 194, device=device), torch.rand(97, device=device)
    alone = backend.add_norm(hidden[4:5].clone(), delta[4:5], weight, EPS), backend.silu_mul(gate_up[4:5])
    for other in (0, 5):
        hidden[other], gate_up[other] = poisoned(97, device=device), poisoned(194, device=device)
    together = backend.add_norm(hidden, delta, weight, EPS), backend.silu_mul(gate_up)
    for one, all_of_them in zip(alone, together, strict=True):
        assert torch.equal(one[0], all_of_them[4])
        assert all_of_them[0].isnan().all()
        assert all_of_them[1:5].isfinite().all()


@pytest.mark.parametrize(("backend", "device", "dtype"), BACKENDS[:2], ids=["cpu", "gpu"])
def test_silu_neither_overflows_nor_loses_its_sign(backend, device: str, dtype: torch.dtype):
    gates = torch.tensor([0.0, -0.0, 1e-30, 88.0, -88.0, 200.0, -200.0, 1e30, -1e30], device=device)
    out = backend.silu_mul(torch.cat((gates, torch.ones_like(gates))).view(1, -1))[0]
    expected = reference.silu_mul(torch.cat((gates, torch.ones_like(gates))).view(1, -1))[0]
    assert (out - expected).abs().le(expected.abs() * 1e-6 + 1e-7).all()


def test_many_rows_go_to_every_thread_and_give_the_same_bits(monkeypatch):
    hidden, gate_up, weight = torch.randn(37, 64), torch.randn(37, 128), torch.rand(64)
    whole = cpu.add_norm(hidden.clone(), None, weight, EPS), cpu.silu_mul(gate_up)
    monkeypatch.setattr(cpu, "SINGLE_THREAD_VALUES", 0)
    monkeypatch.setattr(cpu, "get_parts", lambda: 2)
    assert torch.equal(cpu.add_norm(hidden.clone(), None, weight, EPS), whole[0])
    assert torch.equal(cpu.silu_mul(gate_up), whole[1])
