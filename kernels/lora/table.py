"""Adapter weights where kernels can reach them: per slot one allocation, and tables of addresses, ranks and scales.

Owns the in-memory format. `prepare` is heavy and may run on any thread; `set_slot` and `clear_slot` only rewrite
table rows, belong on the thread that runs the steps, and bump the epoch that every plan carries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.lora.plan import LoraPlan


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
    """One adapted linear layer: y += scale * b @ (a @ x).

    a: [padded rank, in], b: [out, padded rank], any float dtype; only the first `rank` rows of a and columns of b
    are read. scale: alpha / rank, or alpha / sqrt(rank), already computed.
    """

    a: Tensor
    b: Tensor
    rank: int
    scale: float


@dataclass(frozen=True, slots=True)
class Padding:
    """Multiples that stored ranks, inputs and outputs are rounded up to, with zeros, so kernels need no masks."""

    ranks: int = 1
    inputs: int = 1
    outputs: int = 1


CPU_PADDING = Padding(ranks=4, inputs=32, outputs=64)
GPU_PADDING = Padding(ranks=16)


@dataclass(frozen=True, slots=True)
class SlotWeights:
    """One adapter as kernels read it.

    data: one flat tensor that every address points into. a_address: int64 [layers, sites], of A_cat
    [sum of padded ranks, padded in]. b_address: int64 [layers, sites, slices], of the slice's transposed B
    [padded rank, padded out], whose long rows stream and need no alignment of the rank. rank (true) and padded: int32
    [layers, sites, slices]. scale: float32 [layers, sites, slices].
    """

    data: Tensor
    a_address: np.ndarray
    b_address: np.ndarray
    rank: np.ndarray
    padded: np.ndarray
    scale: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.data.nbytes


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """The tables as tensors, for kernels that cannot read numpy. Shapes as in LoraTable. columns: per site int64
    [blocks, 4], COLUMNS wide pieces of its slices: slice, first column in it, its width, the slice's place in y."""

    a_address: Tensor
    b_address: Tensor
    padded: Tensor
    scale: Tensor
    columns: dict[str, Tensor]


COLUMNS = 64


def up(size: int, multiple: int) -> int:
    """size rounded up to a multiple."""
    return -(-size // multiple) * multiple


class LoraTable:
    """All resident adapters of one base model.

    layers: number of decoder layers. sites: name to shape, the same in every layer. dtype: of the stored weights.
    padding: by default what the device's kernels want. The tables are numpy arrays
    [layers, sites, slots(, slices)]; `tensors` gives them on the device.
    """

    def __init__(
        self,
        layers: int,
        sites: Mapping[str, SiteShape],
        dtype: torch.dtype = torch.bfloat16,
        device: str = "cpu",
        padding: Padding | None = None,
    ) -> None:
        self.layers = layers
        self.sites = dict(sites)
        self.site_index = {name: i for i, name in enumerate(self.sites)}
        self.dtype = dtype
        self.device = device
        self.padding = padding or (CPU_PADDING if device == "cpu" else GPU_PADDING)
        self.widths = {name: np.array(shape.slices, np.int64) for name, shape in self.sites.items()}
        self.epoch = 0
        self._on_device: tuple[int, DeviceTables] | None = None
        self.slots: dict[int, SlotWeights] = {}
        self._slices = max(len(s.slices) for s in self.sites.values())
        shape = (layers, len(self.sites), 8, self._slices)
        self.a_address = np.zeros(shape[:3], np.int64)
        self.b_address = np.zeros(shape, np.int64)
        self.rank, self.padded = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self.scale = np.zeros(shape, np.float32)

    def prepare(self, modules: Mapping[tuple[int, str, int], SliceWeights]) -> SlotWeights:
        """Copy an adapter into the kernels' format. modules: (layer, site, slice index) to weights; the rest have
        rank 0. Raises ValueError for a shape that does not fit the site. Touches nothing of the table."""
        shape = (self.layers, len(self.sites), self._slices)
        rank, padded = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        scale, b_offset = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        a_offset = np.zeros(shape[:2], np.int64)
        for (layer, site, part), weights in modules.items():
            self._check(layer, site, part, weights)
            at = (layer, self.site_index[site], part)
            rank[at], scale[at] = weights.rank, weights.scale
            padded[at] = up(weights.rank, self.padding.ranks)
        size = 0
        for layer in range(self.layers):
            for index, site_shape in enumerate(self.sites.values()):
                a_offset[layer, index] = size
                size += int(padded[layer, index].sum()) * up(site_shape.in_features, self.padding.inputs)
                for part, out in enumerate(site_shape.slices):
                    b_offset[layer, index, part] = size
                    size += int(padded[layer, index, part]) * up(out, self.padding.outputs)
        data = torch.zeros(size, dtype=self.dtype, device=self.device)
        base, item = data.data_ptr(), self.dtype.itemsize
        slot = SlotWeights(data, base + a_offset * item, base + b_offset * item, rank, padded, scale)
        for (layer, site, part), weights in modules.items():
            a, b = self._views(slot, layer, site, part)
            a.copy_(weights.a[: weights.rank])
            b.copy_(weights.b[:, : weights.rank].T)
        return slot

    def set_slot(self, slot: int, weights: SlotWeights) -> None:
        """Make a prepared adapter reachable as `slot`, replacing what was there."""
        if slot < 0:
            raise ValueError("slot must not be negative")
        self._grow(slot + 1)
        self.slots[slot] = weights
        self.a_address[:, :, slot], self.b_address[:, :, slot] = weights.a_address, weights.b_address
        self.rank[:, :, slot], self.scale[:, :, slot] = weights.rank, weights.scale
        self.padded[:, :, slot] = weights.padded
        self._changed()

    def clear_slot(self, slot: int) -> None:
        """Forget an adapter; its memory goes with the last reference. Raises KeyError if the slot is empty."""
        del self.slots[slot]
        self.rank[:, :, slot] = 0
        self.padded[:, :, slot] = 0
        self._changed()

    def plan(self, slots: Sequence[int | None], q_lens: Sequence[int]) -> LoraPlan:
        """The step's plan. slots: per row the adapter's slot, None for the base model. q_lens: tokens per row."""
        ranks = {slot: int(weights.rank.max(initial=0)) for slot, weights in self.slots.items()}
        return LoraPlan.build(slots, q_lens, ranks, self.epoch, self.device)

    def slice_weights(self, slot: int, layer: int, site: str, part: int) -> SliceWeights | None:
        """What a slot holds for one slice (views into its data), or None at rank 0. For references and tests."""
        weights = self.slots[slot]
        at = (layer, self.site_index[site], part)
        if weights.rank[at] == 0:
            return None
        a, b = self._views(weights, layer, site, part)
        return SliceWeights(a, b.T, int(weights.rank[at]), float(weights.scale[at]))

    def require(self, plan: LoraPlan) -> None:
        """Raises RuntimeError for a plan built before the table last changed."""
        if plan.epoch != self.epoch:
            raise RuntimeError(f"the plan was built at epoch {plan.epoch}, the adapter table is at {self.epoch}")

    def tensors(self) -> DeviceTables:
        """The tables on the table's device, copied once per epoch."""
        if self._on_device is None or self._on_device[0] != self.epoch:
            tables = [self.a_address, self.b_address, self.padded, self.scale]
            a, b, padded, scale = (torch.from_numpy(t.copy()).to(self.device) for t in tables)
            columns = {name: self._columns(shape) for name, shape in self.sites.items()}
            self._on_device = (self.epoch, DeviceTables(a, b, padded, scale, columns))
        return self._on_device[1]

    def _columns(self, shape: SiteShape) -> Tensor:
        pieces, place = [], 0
        for part, width in enumerate(shape.slices):
            pieces += [(part, first, width, place) for first in range(0, width, COLUMNS)]
            place += width
        return torch.tensor(pieces, dtype=torch.int64, device=self.device)

    def _views(self, slot: SlotWeights, layer: int, site: str, part: int) -> tuple[Tensor, Tensor]:
        """A [rank, in] and transposed B [rank, out] of one slice inside a slot's data."""
        index, shape = self.site_index[site], self.sites[site]
        r, width = int(slot.rank[layer, index, part]), up(shape.in_features, self.padding.inputs)
        item, base = self.dtype.itemsize, slot.data.data_ptr()
        start = (int(slot.a_address[layer, index]) - base) // item
        start += int(slot.padded[layer, index, :part].sum()) * width
        a = slot.data[start : start + r * width].view(r, -1)[:, : shape.in_features]
        width = up(shape.slices[part], self.padding.outputs)
        start = (int(slot.b_address[layer, index, part]) - base) // item
        return a, slot.data[start : start + r * width].view(r, -1)[:, : shape.slices[part]]

    def _check(self, layer: int, site: str, part: int, weights: SliceWeights) -> None:
        if site not in self.sites or not 0 <= layer < self.layers or not 0 <= part < len(self.sites[site].slices):
            raise ValueError(f"no slice {part} of site {site!r} in layer {layer}")
        shape, r = self.sites[site], weights.rank
        a, b = tuple(weights.a.shape), tuple(weights.b.shape)
        if r < 1 or a[0] < r or a[1:] != (shape.in_features,) or b[1] < r or b[0] != shape.slices[part]:
            raise ValueError(f"layer {layer} {site}[{part}]: rank {r} with a {a} and b {b} does not fit {shape}")

    def _grow(self, slots: int) -> None:
        """Tables double when a slot is beyond them: capacity is memory's question, never a slot count's."""
        have = self.rank.shape[2]
        if slots > have:
            more = max(2 * have, slots) - have
            self.a_address, self.b_address, self.rank, self.padded, self.scale = (
                np.concatenate((table, np.zeros((*table.shape[:2], more, *table.shape[3:]), table.dtype)), axis=2)
                for table in (self.a_address, self.b_address, self.rank, self.padded, self.scale)
            )

    def _changed(self) -> None:
        self.epoch += 1
