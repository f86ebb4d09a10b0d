"""Where each byte of one adapter lies: segments that may be placed anywhere, in the order that kernels read them.

Owns the in-memory format. Ranks are the adapter's own, rounded up to a few rows and never to a pool's maximum; int8
and the table's dtype may lie side by side, site by site. It must not know slots, files, or who owns the memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.lora.transfer import Arrival

Place = tuple[int, str, int]  # layer, site, slice


@dataclass(frozen=True, slots=True)
class SiteShape:
    """One fused group of linear layers that read the same input. slices: output features of each, in order."""

    in_features: int
    slices: tuple[int, ...]

    @property
    def out_features(self) -> int:
        return sum(self.slices)


@dataclass(frozen=True, slots=True)
class SliceWeights:
    """One adapted linear layer: y += b @ (scale * channels * (a @ x)).

    a: [padded rank, in], b: [out, padded rank], float, or both int8; only the first `rank` rows of a and columns of
    b are read. scale: alpha / rank, or alpha / sqrt(rank), already computed. channels: fp32 [rank] of int8 weights,
    the scale of a's row times the scale of b's column; None means ones.
    """

    a: Tensor
    b: Tensor
    rank: int
    scale: float
    channels: Tensor | None = None

    @property
    def factors(self) -> Tensor:
        """fp32 [rank]: what the bridge is multiplied by."""
        return torch.full((self.rank,), self.scale) if self.channels is None else self.channels * self.scale


@dataclass(frozen=True, slots=True)
class Packing:
    """How a device's kernels want weights. ranks, inputs, outputs: sizes are rounded up to multiples of these, with
    zeros, so that kernels need no masks. panel: B lies as [out / panel, rank, panel], one stream for a walk over
    outputs; 0 for [rank, out]. pairs: of every so many inputs the first half lies at even places and the second at
    odd ones (2-byte values only), so that a shift and a mask of words widen them to two vectors; 0 for none."""

    ranks: int = 1
    inputs: int = 1
    outputs: int = 1
    panel: int = 0
    pairs: int = 0


CPU_PACKING = Packing(ranks=4, inputs=32, outputs=64, panel=64, pairs=32)
GPU_PACKING = Packing(ranks=8, inputs=16, outputs=16)
ALIGNMENT = 64  # bytes; of every segment's address and size


@dataclass(frozen=True, slots=True)
class Segment:
    """One contiguous piece: a site's A with its bridge factors (part None), or one slice's B."""

    nbytes: int
    layer: int
    site: str
    part: int | None


@dataclass(frozen=True, slots=True)
class SlotWeights:
    """One adapter as kernels read it.

    buffers: the memory of its segments, kept alive. a_address: int64 [layers, sites], of A_cat [sum of padded ranks,
    padded in]. factor_address: int64 [layers, sites], of fp32 [sum of padded ranks], what the bridge is multiplied
    by. b_address: int64 [layers, sites, slices], of the slice's transposed B, as Packing says. rank (true) and
    padded: int32 [layers, sites, slices]. item: int32 [layers, sites], bytes per value of A and B; 1 means int8.
    arrival: what to wait for before a layer is read, if anything.
    """

    buffers: tuple[Tensor, ...]
    a_address: np.ndarray
    factor_address: np.ndarray
    b_address: np.ndarray
    rank: np.ndarray
    padded: np.ndarray
    item: np.ndarray
    arrival: Arrival | None = None

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)


def up(size: int, multiple: int) -> int:
    """size rounded up to a multiple."""
    return -(-size // multiple) * multiple


class Layout:
    """The format of one base model's adapters on one device. dtype: of weights that are not int8."""

    def __init__(self, layers: int, sites: Mapping[str, SiteShape], dtype: torch.dtype, packing: Packing) -> None:
        self.layers = layers
        self.sites = dict(sites)
        self.site_index = {name: i for i, name in enumerate(self.sites)}
        self.slices = max(len(shape.slices) for shape in self.sites.values())
        self.dtype = dtype
        self.packing = packing

    def width(self, site: str) -> int:
        """Values between two rows of a site's A as stored."""
        return up(self.sites[site].in_features, self.packing.inputs)

    def segments(self, modules: Mapping[Place, SliceWeights]) -> tuple[Segment, ...]:
        """Layer after layer, site after site, A and then the slices' Bs; what has rank 0 has none. Of the weights
        only shapes, ranks and dtypes are looked at, so tensors on torch's meta device do. Raises ValueError for a
        shape that does not fit its site, or int8 beside float in one."""
        for (layer, site, part), weights in modules.items():
            self._check(layer, site, part, weights)
        found = []
        for layer, site, present in self._walk(modules):
            shape, item = self.sites[site], self._item(layer, site, present)
            rows = {part: up(weights.rank, self.packing.ranks) for part, weights in present.items()}
            a = sum(rows.values()) * (up(shape.in_features, self.packing.inputs) * item + 4)
            found.append(Segment(up(a, ALIGNMENT), layer, site, None))
            for part, padded in rows.items():
                size = padded * up(shape.slices[part], self.packing.outputs) * item
                found.append(Segment(up(size, ALIGNMENT), layer, site, part))
        return tuple(found)

    def write(self, modules: Mapping[Place, SliceWeights], buffers: Sequence[Tensor]) -> None:
        """Fill host memory, uint8 [nbytes] per segment, every byte of it."""
        left = iter(buffers)
        for layer, site, present in self._walk(modules):
            self._write_site(self.sites[site], self._item(layer, site, present), present, left)

    def slot(self, modules: Mapping[Place, SliceWeights], buffers: Sequence[Tensor]) -> SlotWeights:
        """What kernels need to find an adapter that was written to these buffers, on whatever device they are."""
        shape = (self.layers, len(self.sites), self.slices)
        rank, padded, b_address = (np.zeros(shape, kind) for kind in (np.int32, np.int32, np.int64))
        a_address, factor_address, item = (np.zeros(shape[:2], kind) for kind in (np.int64, np.int64, np.int32))
        left = iter(buffers)
        for layer, site, present in self._walk(modules):
            at, width = (layer, self.site_index[site]), up(self.sites[site].in_features, self.packing.inputs)
            a_address[at] = next(left).data_ptr()
            item[at] = self._item(layer, site, present)
            for part, weights in present.items():
                rank[(*at, part)], padded[(*at, part)] = weights.rank, up(weights.rank, self.packing.ranks)
                b_address[(*at, part)] = next(left).data_ptr()
            factor_address[at] = a_address[at] + int(padded[at].sum()) * width * int(item[at])
        return SlotWeights(tuple(buffers), a_address, factor_address, b_address, rank, padded, item)

    def read(self, slot: SlotWeights, layer: int, site: str, part: int) -> SliceWeights | None:
        """One slice as it went in, with all factors in `channels`; None at rank 0. Copies: for references."""
        at, shape = (layer, self.site_index[site]), self.sites[site]
        rank = int(slot.rank[(*at, part)])
        if rank == 0:
            return None
        item = int(slot.item[at])
        kind = torch.int8 if item == 1 else self.dtype
        first, total = int(slot.padded[at][:part].sum()), int(slot.padded[at].sum())
        width = up(shape.in_features, self.packing.inputs)
        raw = _find(slot, int(slot.a_address[at]))
        a = raw[: total * width * item].view(kind).view(total, width)[first : first + rank]
        factors = raw[total * width * item :][: 4 * total].view(torch.float32)[first : first + rank]
        wide, padded = up(shape.slices[part], self.packing.outputs), int(slot.padded[(*at, part)])
        b = _find(slot, int(slot.b_address[(*at, part)]))[: padded * wide * item].view(kind)
        if self.packing.panel:
            b = b.view(-1, padded, self.packing.panel).transpose(0, 1).reshape(padded, wide)
        a = self._paired(a, back=True)[:, : shape.in_features]
        return SliceWeights(a, b.view(padded, wide)[:rank, : shape.slices[part]].T, rank, 1.0, factors.clone())

    def _write_site(
        self, shape: SiteShape, item: int, present: Mapping[int, SliceWeights], left: Iterator[Tensor]
    ) -> None:
        kind, width = torch.int8 if item == 1 else self.dtype, up(shape.in_features, self.packing.inputs)
        rows = [up(weights.rank, self.packing.ranks) for weights in present.values()]
        total = sum(rows)
        raw = next(left).zero_()
        a = raw[: total * width * item].view(kind).view(total, width)
        factors = raw[total * width * item :][: 4 * total].view(torch.float32)
        first = 0
        for (part, weights), padded in zip(present.items(), rows, strict=True):
            r = weights.rank
            plain = torch.zeros((r, width), dtype=kind)
            plain[:, : shape.in_features] = weights.a[:r]
            a[first : first + r] = self._paired(plain)
            factors[first : first + r] = weights.factors
            first += padded
            out, wide = shape.slices[part], up(shape.slices[part], self.packing.outputs)
            b = next(left).zero_()[: padded * wide * item].view(kind)
            if self.packing.panel:
                plain = torch.zeros((wide, r), dtype=kind)
                plain[:out] = weights.b[:, :r]
                panels = plain.view(-1, self.packing.panel, r).transpose(1, 2)
                b.view(-1, padded, self.packing.panel)[:, :r] = panels
            else:
                b.view(padded, wide)[:r, :out] = weights.b[:, :r].T

    def _paired(self, a: Tensor, back: bool = False) -> Tensor:
        if not self.packing.pairs or a.dtype.itemsize != 2:
            return a.clone()
        half = self.packing.pairs // 2
        split = a.view(len(a), -1, half, 2) if back else a.view(len(a), -1, 2, half)
        return split.transpose(2, 3).reshape(a.shape)

    def _walk(self, modules: Mapping[Place, SliceWeights]) -> Iterator[tuple[int, str, dict[int, SliceWeights]]]:
        for layer in range(self.layers):
            for site, shape in self.sites.items():
                parts = (part for part in range(len(shape.slices)) if (layer, site, part) in modules)
                if present := {part: modules[layer, site, part] for part in parts}:
                    yield layer, site, present

    def _item(self, layer: int, site: str, present: Mapping[int, SliceWeights]) -> int:
        small = {weights.a.dtype == torch.int8 for weights in present.values()}
        if len(small) > 1:
            raise ValueError(f"layer {layer} {site}: int8 and float slices in one site")
        return 1 if small == {True} else self.dtype.itemsize

    def _check(self, layer: int, site: str, part: int, weights: SliceWeights) -> None:
        if site not in self.sites or not 0 <= layer < self.layers or not 0 <= part < len(self.sites[site].slices):
            raise ValueError(f"no slice {part} of site {site!r} in layer {layer}")
        shape, r, small = self.sites[site], weights.rank, weights.a.dtype == torch.int8
        a, b = tuple(weights.a.shape), tuple(weights.b.shape)
        if r < 1 or a[0] < r or a[1:] != (shape.in_features,) or b[1] < r or b[0] != shape.slices[part]:
            raise ValueError(f"layer {layer} {site}[{part}]: rank {r} with a {a} and b {b} does not fit {shape}")
        if (weights.b.dtype == torch.int8) != small or (small and weights.channels is None):
            raise ValueError(f"layer {layer} {site}[{part}]: int8 a and b come together, and with channels")


def _find(slot: SlotWeights, address: int) -> Tensor:
    """The segment that begins at an address."""
    return next(buffer for buffer in slot.buffers if buffer.data_ptr() == address)
