"""Without a GPU Triton's kernels run through its interpreter, which must be asked for before Python starts."""

import pytest
import torch
import triton

from tenantry.kernels.ops import select_ops


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The Makefile asks for it, and so can you."""
    if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
        skip = pytest.mark.skip(reason="no GPU, and no TRITON_INTERPRET=1 in the environment")
        for item in items:
            if item.get_closest_marker("triton"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ops():
    return select_ops("cpu")
