"""What int8 KV pages and int8 weights may cost on the demo's model: a point of accuracy, a percent of perplexity."""

import pytest
from demo import quality
from demo.quality import EXACT, Format

COUNT = 12


@pytest.fixture(scope="module")
def exact(demo):
    return quality.measure(demo, EXACT, COUNT)


@pytest.mark.parametrize("form", [Format("int8", weights) for weights in ("native", "w8a16", "w8a8")], ids=str)
def test_a_format_costs_no_accuracy_and_no_perplexity(demo, exact, form):
    found = quality.measure(demo, form, COUNT)
    assert found.mean_accuracy >= exact.mean_accuracy - 0.01
    assert set(found.perplexity) == set(exact.perplexity)
    for name, value in found.perplexity.items():
        assert abs(value / exact.perplexity[name] - 1) <= 0.01, name
    assert form.weights == "native" or found.weight_bytes < 0.6 * exact.weight_bytes


def test_the_exact_format_answers_as_the_adapters_were_trained_to(exact):
    assert exact.mean_accuracy >= 0.98
    assert 1 < exact.perplexity["base"] < 4
