"""Adapters that are still on their way: each layer is awaited before it is read, and nothing is written too soon.

Without a device, copies that happen when somebody waits for them stand in for a stream of their own.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tenantry.runtime.plan import Load, StepPlan

LAYERS = 3


class Late:
    """Layers come in order, the first time that anybody waits for them."""

    def __init__(self, layers: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        self.layers, self.here = layers, 0

    def wait(self, layer: int) -> None:
        for pairs in self.layers[self.here : layer + 1]:
            for to, source in pairs:
                to.copy_(source)
        self.here = max(self.here, layer + 1)

    def complete(self) -> bool:
        return self.here == len(self.layers)


class LateCopies:
    def __init__(self) -> None:
        self.fences: list[object] = []
        self.sent: list[Late] = []
        self.after: list[object] = []

    def staging(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def room(self, nbytes: int) -> Tensor:
        return torch.full((nbytes,), 0xFF, dtype=torch.uint8)  # NaN, in every dtype

    def fence(self) -> object:
        self.fences.append(object())
        return self.fences[-1]

    def send(self, layers: Sequence[Sequence[tuple[Tensor, Tensor]]], after: object) -> Late:
        self.after.append(after)
        self.sent.append(Late(layers))
        return self.sent[-1]


@pytest.fixture
def served(serve):
    """A model without adapters, before and after."""
    made = serve("llama")
    runner = made.runner
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
    yield made
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))


@pytest.fixture
def copies(served, monkeypatch) -> LateCopies:
    made = LateCopies()
    monkeypatch.setattr(served.runner.adapters.table, "_copies", made)
    return made


def test_a_step_waits_for_each_layer_just_before_it_reads_it(served, copies, make_adapter, prompts, monkeypatch):
    directory = make_adapter("llama", seed=31, r=8, target_modules="all-linear")
    digest = served.add(directory)
    (arrival,) = copies.sent
    assert copies.after == copies.fences, "written behind what steps had asked for when the load began"
    assert arrival.here == 0, "loaded means on its way"
    seen, attend = [], served.runner.decoder._layers.attend

    def watched(index: int, *rest):
        seen.append(arrival.here)
        return attend(index, *rest)

    monkeypatch.setattr(served.runner.decoder._layers, "attend", watched)
    logits = served.driver.logits(prompts, digest)
    assert seen == list(range(LAYERS)), "layer by layer, none before its turn"
    assert logits.isfinite().all()
    monkeypatch.undo()
    served.runner.run(StepPlan(0, (), evict=(digest,)))
    served.driver.reset()
    assert torch.equal(logits, served.driver.logits(prompts, served.add(directory)))


def test_an_adapter_that_leaves_has_come_first(served, copies, make_adapter):
    """Or its bytes would be written into whatever has its place by then."""
    digest = served.add(make_adapter("llama", seed=32, r=4))
    served.runner.run(StepPlan(0, (), evict=(digest,)))
    assert copies.sent[0].complete()


def test_a_row_of_another_adapter_waits_for_nobody(served, copies, make_adapter, prompts):
    late = served.add(make_adapter("llama", seed=33, r=4))
    other = served.add(make_adapter("llama", seed=34, r=4))
    served.driver.logits(prompts[:2], other)
    assert [arrival.complete() for arrival in copies.sent] == [False, True]
    assert served.runner.adapters.resident == {late, other}


def test_a_load_that_fails_sends_nothing(served, copies):
    served.runner.run(StepPlan(0, (), load=(Load(b"\1" * 32),)))
    while not (result := served.runner.run(StepPlan(0, ()))).failed:
        pass
    assert result.failed[0][0] == b"\1" * 32
    assert copies.sent == []
