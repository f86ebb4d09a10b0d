"""The hidden states that heads read are transformers' own, at every layer, for every row that is computed."""

import pytest
import torch
import transformers

from tenantry.runtime.model.batch import Batch


@pytest.fixture
def tapping(serve):
    """A runner whose decoder hands out some of its hidden states."""
    served = serve("qwen3")
    served.runner.decoder.taps = (2, 0, 3)
    yield served
    served.runner.decoder.taps = ()


def test_taps_are_what_enters_a_layer_and_what_leaves_the_last_norm(tapping, bases, prompts):
    driver, runner = tapping.driver, tapping.runner
    rows = [driver.row(driver.track(prompt)) for prompt in prompts]
    rows[2] = type(rows[2])(rows[2].sequence, rows[2].tokens, 0, rows[2].pages, None, None)  # draws nothing
    taps = runner.forward(rows).taps
    model = transformers.AutoModelForCausalLM.from_pretrained(bases("qwen3"), dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs = [model(torch.tensor([p]), output_hidden_states=True).hidden_states for p in prompts]
    expected = torch.cat([torch.cat([states[i][0] for i in (2, 0, 3)], -1) for states in theirs])
    torch.testing.assert_close(taps, expected, rtol=0, atol=1e-4)


def test_taps_change_no_logits_and_are_not_made_unasked(tapping, prompts):
    decoder = tapping.runner.decoder
    rows = [tapping.driver.row(tapping.driver.track(prompt)) for prompt in prompts]
    batch = Batch.build(rows, tapping.driver.page_size, None)
    tapped = decoder.forward(batch)
    decoder.taps = ()
    plain = decoder.forward(batch)
    assert plain.taps.shape == (len(tapped.taps), 0)
    assert torch.equal(plain.logits, tapped.logits)
