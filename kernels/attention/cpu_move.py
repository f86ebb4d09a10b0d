"""Moving single positions of a cache on CPU: bytes are copied as they are, so what was rounded once stays so.

Few slots and many layers: all of the cost is in the call, so addresses go in and one core does it.
"""

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.addresses import pointer
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.compiling import compiled

Ints = NDArray[np.int64]


@compiled
def move_part(
    address: int, pages: int, stride: int, heads: int, page_size: int, width: int, sources: Ints, targets: Ints
) -> None:
    """One tensor of a layer, [pages, heads, page_size, width] bytes, pages `stride` bytes apart."""
    store = carray(pointer(address), ((pages - 1) * stride + heads * page_size * width,), np.uint8)
    rows, most = sources.shape
    for row in range(rows):
        for i in range(most):
            source, target = sources[row, i], targets[row, i]
            if target >= 0:
                for head in range(heads):
                    a = source // page_size * stride + (head * page_size + source % page_size) * width
                    b = target // page_size * stride + (head * page_size + target % page_size) * width
                    for byte in range(width):
                        store[b + byte] = store[a + byte]


def move_kv(pages: LayerPages, sources: Tensor, targets: Tensor) -> None:
    """See reference.py."""
    moves = sources.contiguous().numpy(), targets.contiguous().numpy()
    for store in (pages.k, pages.v, pages.k_scale, pages.v_scale):
        if store is not None:
            count, heads, page_size, width = store.shape
            item = store.element_size()
            stride = store.stride(0) * item
            move_part(store.data_ptr(), count, stride, heads, page_size, width * item, *moves)
