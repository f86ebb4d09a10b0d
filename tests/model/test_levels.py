"""One plan for all levels of a draft: the same logits, bit for bit, as batches that are built one by one."""

import pytest
import torch

from tenantry.kernels.attention.plan import CHUNK
from tenantry.runtime.model import levels as levels_module
from tenantry.runtime.model.batch import Batch
from tenantry.runtime.model.driver import GREEDY, Driver
from tenantry.runtime.model.levels import Levels
from tenantry.runtime.plan import Draw, Row


@pytest.mark.parametrize("chunk", [CHUNK, 8])
def test_levels_are_batches_built_one_by_one(serve, chunk, monkeypatch):
    """Also where a row's attention begins another piece between two levels, as if pieces were that small."""
    monkeypatch.setattr(levels_module, "CHUNK", chunk)
    served = serve("llama-biases-linear", kv_dtype="int8")
    driver, runner = Driver(served.runner), served.runner
    tracks = [driver.track([3 + i % 90 for i in range(length)]) for length in (5, 20)]
    driver.step(tracks)
    most, size = 6, driver.page_size
    for track in tracks:
        while len(track.pages) * size < track.computed + most:
            track.pages.append(driver._next_page)
            driver._next_page += 1
    starts, pages = [track.computed for track in tracks], [track.pages for track in tracks]
    levels = Levels(starts, pages, most, size, "cpu", None)
    for level in range(most):
        tokens = [5 + level, 60 - level]
        mine = runner.decoder.forward(levels.next(tokens))
        rows = [
            Row(i, (token,), start + level, p, None, Draw(GREEDY, 0, start + level + 1, 1, ()))
            for i, (token, start, p) in enumerate(zip(tokens, starts, pages, strict=True))
        ]
        theirs = runner.decoder.forward(Batch.build(rows, size, None))
        assert torch.equal(mine.logits, theirs.logits)
    with pytest.raises(AssertionError, match="no pages"):
        levels.next([1, 2])
