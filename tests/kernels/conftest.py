"""Triton kernels run through its interpreter where there is no GPU; it must be told before triton is imported."""

import os

import pytest
import torch

from tenantry.kernels.ops import select_ops

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ops():
    return select_ops("cpu")
