"""While a device is at a step, the host prepares the next one: after it has asked for tokens, before it waits."""

from dataclasses import replace

import pytest


@pytest.fixture
def watched(serve, monkeypatch):
    """A runner that says in which order things happen."""
    served, order = serve("llama"), []
    runner, ops = served.runner, served.runner.decoder.ops

    class Forward:
        def __init__(self, forward) -> None:
            self._forward = forward

        def __call__(self, rows):
            order.append("computes")
            return self._forward(rows)

        def ahead(self, rows) -> None:
            order.append(("prepares", [row.start for row in rows]))
            self._forward.ahead(rows)

    class Waiting:
        def __init__(self, drawn) -> None:
            self._drawn = drawn

        def beside(self):
            order.append("waits")
            return self._drawn.beside()

        def result(self):
            return self._drawn.result()

    def draw(*asked):
        order.append("asks")
        return Waiting(ops.draw(*asked))

    monkeypatch.setattr(runner, "_forward", Forward(runner._forward))
    monkeypatch.setattr(runner._judge, "_ops", replace(ops, draw=draw))
    return served, order


def test_the_next_step_is_prepared_before_anybody_waits_for_this_one(watched):
    served, order = watched
    served.driver.step([served.driver.track([3, 4, 5])])
    assert order == ["computes", "asks", ("prepares", [0]), "waits"]
