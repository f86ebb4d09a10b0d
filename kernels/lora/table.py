"""Adapter weights where kernels can reach them: tables of addresses and ranks per slot.

`prepare` is heavy and may run on any thread; `set_slot` and `clear_slot` only rewrite table rows, belong on the
thread that runs the steps, and bump the epoch that every plan carries. The weights' bytes are layout.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.lora.layout import (
    ALIGNMENT,
    CPU_PACKING,
    GPU_PACKING,
    Layout,
    Packing,
    Place,
    Segment,
    SiteShape,
    SliceWeights,
    SlotWeights,
    up,
)
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.transfer import Arrival, Copies, Fence, Pair

COLUMNS = 128  # of a slice, per program of a kernel
BRIDGE = 64  # bridges are as wide as the widest, rounded up to this


@dataclass(frozen=True, slots=True)
class DeviceTables:
    """The tables as tensors, for kernels that cannot read numpy. Shapes as in LoraTable. bridge_width: per site, no
    less than any adapter's ranks together. columns: per site int64
    [blocks, 5], COLUMNS wide pieces of its slices: slice, first column in it, its width, its width as stored, its
    place in y."""

    a_address: Tensor
    factor_address: Tensor
    b_address: Tensor
    padded: Tensor
    item: Tensor
    bridge_width: dict[str, int]
    columns: dict[str, Tensor]


class LoraTable:
    """All resident adapters of one base model.

    layers: number of decoder layers. sites: name to shape, the same in every layer. dtype: of weights that are not
    int8. packing: by default what the device's kernels want. copies: how weights get to the device while steps run;
    None: prepare() waits until they are there. The tables are numpy arrays [layers, sites, slots(, slices)];
    `tensors` gives them on the device.
    """

    def __init__(
        self,
        layers: int,
        sites: Mapping[str, SiteShape],
        dtype: torch.dtype = torch.bfloat16,
        device: str = "cpu",
        packing: Packing | None = None,
        copies: Copies | None = None,
    ) -> None:
        packing = packing or (CPU_PACKING if device == "cpu" else GPU_PACKING)
        self.layout = Layout(layers, sites, dtype, packing)
        self.layers, self.sites, self.site_index = layers, self.layout.sites, self.layout.site_index
        self.dtype = dtype
        self.device = device
        self._copies = copies
        self.widths = {name: np.array(shape.slices, np.int64) for name, shape in self.sites.items()}
        self.epoch = 0
        self._on_device: DeviceTables | None = None
        self._copied = -1
        self.slots: dict[int, SlotWeights] = {}
        shape = (layers, len(self.sites), 8, self.layout.slices)
        self.a_address, self.factor_address = np.zeros(shape[:3], np.int64), np.zeros(shape[:3], np.int64)
        self.b_address = np.zeros(shape, np.int64)
        self.padded = np.zeros(shape, np.int32)
        self.item = np.zeros(shape[:3], np.int32)
        self.ranks = np.full(8, -1, np.int32)  # highest of each slot, -1 where there is none

    def segments(self, modules: Mapping[Place, SliceWeights]) -> tuple[Segment, ...]:
        """The pieces that prepare() wants memory for, in its order; see Layout.segments."""
        return self.layout.segments(modules)

    def fence(self) -> Fence:
        """For prepare(): what steps have asked of the device so far, and may still read where it writes."""
        return None if self._copies is None else self._copies.fence()

    def prepare(
        self,
        modules: Mapping[Place, SliceWeights],
        buffers: Sequence[Tensor] | None = None,
        after: Fence = None,
    ) -> SlotWeights:
        """Copy an adapter into the kernels' format. modules: weights by (layer, site, slice index); the rest have
        rank 0. buffers: uint8 memory on the table's device for each of its segments, of the segment's size and
        aligned to ALIGNMENT; None allocates. after: the fence behind which they may be written. Raises ValueError
        for a shape that does not fit the site or memory that does not fit the segments. Touches nothing of the
        table."""
        segments = self.layout.segments(modules)
        sizes = [segment.nbytes for segment in segments]
        if buffers is None:
            buffers = torch.split(self._room(sum(sizes)), sizes)
        if [buffer.nbytes for buffer in buffers] != sizes or any(buffer.dtype != torch.uint8 for buffer in buffers):
            raise ValueError("buffers: one of uint8 for every segment, of its size")
        if any(buffer.data_ptr() % ALIGNMENT for buffer in buffers):
            raise ValueError(f"buffers: addresses must be multiples of {ALIGNMENT}")
        if self._copies is not None:
            staging = torch.split(self._copies.staging(sum(sizes)), sizes)
            self.layout.write(modules, staging)
            pairs: list[list[Pair]] = [[] for _ in range(self.layers)]
            for segment, buffer, piece in zip(segments, buffers, staging, strict=True):
                pairs[segment.layer].append((buffer, piece))
            return replace(self.layout.slot(modules, buffers), arrival=self._copies.send(pairs, after))
        if self.device == "cpu":
            self.layout.write(modules, buffers)
        else:
            staging = torch.split(torch.empty(sum(sizes), dtype=torch.uint8), sizes)
            self.layout.write(modules, staging)
            for buffer, piece in zip(buffers, staging, strict=True):
                buffer.copy_(piece)
        return self.layout.slot(modules, buffers)

    def set_slot(self, slot: int, weights: SlotWeights) -> None:
        """Make a prepared adapter reachable as `slot`, replacing what was there."""
        if slot < 0:
            raise ValueError("slot must not be negative")
        self._grow(slot + 1)
        self.slots[slot] = weights
        self.a_address[:, :, slot], self.factor_address[:, :, slot] = weights.a_address, weights.factor_address
        self.b_address[:, :, slot], self.padded[:, :, slot] = weights.b_address, weights.padded
        self.item[:, :, slot] = weights.item
        self.ranks[slot] = weights.rank.max(initial=0)
        self.epoch += 1

    def clear_slot(self, slot: int) -> None:
        """Forget an adapter; its memory goes with the last reference. Raises KeyError if the slot is empty."""
        self.wait([slot])  # whatever is written there next comes after what is still on its way
        del self.slots[slot]
        self.padded[:, :, slot] = 0
        self.ranks[slot] = -1
        self.epoch += 1

    def plan(self, slots: Sequence[int | None], q_lens: Sequence[int]) -> LoraPlan:
        """The step's plan. slots: per row the adapter's slot, None for the base model. q_lens: tokens per row."""
        plan = LoraPlan.build(slots, q_lens, self.ranks, self.epoch, self.device)
        plan.arriving = self._arriving(slots)
        return plan

    def wait(self, slots: Sequence[int | None]) -> None:
        """Before a graph that reads these adapters, which has no place to wait for a layer: all of them are there for
        what the current stream is asked next."""
        for arrival in self._arriving(slots):
            arrival.wait(self.layers - 1)

    def refill(self, plan: LoraPlan, slots: Sequence[int | None], q_lens: Sequence[int]) -> None:
        """plan() into a reserved plan."""
        plan.refill(slots, q_lens, self.ranks, self.epoch)

    def slice_weights(self, slot: int, layer: int, site: str, part: int) -> SliceWeights | None:
        """What a slot holds for one slice, as a copy, or None at rank 0. For references and tests."""
        return self.layout.read(self.slots[slot], layer, site, part)

    def require(self, plan: LoraPlan) -> None:
        """Raises RuntimeError for a plan built before the table last changed."""
        if plan.epoch != self.epoch:
            raise RuntimeError(f"the plan was built at epoch {plan.epoch}, the adapter table is at {self.epoch}")

    def tensors(self) -> DeviceTables:
        """The tables on the table's device, copied once per epoch, in place: the object is another one only when
        slots or bridges outgrew it, and then graphs that were captured over it must be captured again."""
        old, widths = self._on_device, self._bridge_widths()
        tables = [torch.from_numpy(t) for t in (self.a_address, self.factor_address, self.b_address, self.padded)]
        tables.append(torch.from_numpy(self.item))
        if old is None or old.a_address.shape != tables[0].shape or widths != old.bridge_width:
            columns = {name: self._columns(shape) for name, shape in self.sites.items()}
            a, factor, b, padded, item = (t.to(self.device, copy=True) for t in tables)
            self._on_device = DeviceTables(a, factor, b, padded, item, widths, columns)
        elif self._copied != self.epoch:
            for mine, new in zip(
                (old.a_address, old.factor_address, old.b_address, old.padded, old.item), tables, strict=True
            ):
                mine.copy_(new)
        self._copied = self.epoch
        assert self._on_device is not None
        return self._on_device

    def _arriving(self, slots: Sequence[int | None]) -> tuple[Arrival, ...]:
        if self._copies is None:
            return ()
        found = [self.slots[slot].arrival for slot in set(slots) if slot is not None]
        return tuple(arrival for arrival in found if arrival is not None and not arrival.complete())

    def _room(self, nbytes: int) -> Tensor:
        if self._copies is not None:
            return self._copies.room(nbytes)
        return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def _bridge_widths(self) -> dict[str, int]:
        """Never narrower than before."""
        old = self._on_device.bridge_width if self._on_device else dict.fromkeys(self.sites, BRIDGE)
        most = self.padded.sum(-1).max((0, 2))
        return {site: max(old[site], up(int(most[at]), BRIDGE)) for site, at in self.site_index.items()}

    def _columns(self, shape: SiteShape) -> Tensor:
        pieces, place = [], 0
        for part, width in enumerate(shape.slices):
            wide = up(width, self.layout.packing.outputs)
            pieces += [(part, first, width, wide, place) for first in range(0, width, COLUMNS)]
            place += width
        return torch.tensor(pieces, dtype=torch.int64, device=self.device)

    def _grow(self, slots: int) -> None:
        """Tables double when a slot is beyond them: capacity is memory's question, never a slot count's."""
        have = len(self.ranks)
        if slots > have:
            more = max(2 * have, slots) - have
            self.a_address, self.factor_address, self.b_address, self.padded, self.item = (
                np.concatenate((table, np.zeros((*table.shape[:2], more, *table.shape[3:]), table.dtype)), axis=2)
                for table in (self.a_address, self.factor_address, self.b_address, self.padded, self.item)
            )
            self.ranks = np.append(self.ranks, np.full(more, -1, np.int32))
