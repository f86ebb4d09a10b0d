"""The memory behind page ids: every layer's keys and values, allocated once.

Owns tensors and their size. It must not know which page is whose: that is pages.py, and it never meets a tensor.
"""

from tenantry.kernels.attention.layout import LayerPages, PageLayout


class KvPool:
    """layers[i] is one layer's cache; page ids 0 .. pages - 1 mean the same positions in every layer."""

    def __init__(self, layout: PageLayout, layers: int, pages: int, device: str = "cpu") -> None:
        self.layout = layout
        self.layers: tuple[LayerPages, ...] = tuple(layout.allocate(pages, device) for _ in range(layers))
        self.nbytes = self.bytes_per_page(layout, layers) * pages

    @staticmethod
    def bytes_per_page(layout: PageLayout, layers: int) -> int:
        """Bytes that one page id stands for: all layers, keys, values and scales."""
        return layout.bytes_per_page * layers
