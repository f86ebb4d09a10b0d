"""What the benchmarks of guesses call shown: an oracle that kept its word, texts that were compared to the end."""

import pytest

from benchmarks.exactness import parted
from benchmarks.speculation import _oracle_verdict
from tenantry.runtime.messages import TokenLogprob


def test_an_oracle_that_was_right_more_rarely_than_told_shows_nothing():
    assert _oracle_verdict(0.8, 0.78, 0.9) == "ok"
    assert _oracle_verdict(0.8, 0.78, 0.8).startswith("below")
    assert _oracle_verdict(0.8, 0.69, 0.99) == "stood 0.69, not 0.8"


def test_a_text_without_the_logprobs_that_it_had_is_no_equal():
    def logprob(token):
        return TokenLogprob(token, -1.0)

    plain = {"a": ([1, 2], [logprob(1), logprob(2)])}
    assert parted(plain, {"a": ([1, 2], [logprob(1), logprob(2)])}) == (0, 2)
    assert parted(plain, {"a": ([1, 3, 4], [logprob(1), logprob(3), logprob(4)])}) == (1, 1)
    for short in ([], [logprob(1)]):
        with pytest.raises(AssertionError, match="log-probabilities"):
            parted(plain, {"a": ([1, 2], short)})
    with pytest.raises(AssertionError, match="another token"):
        parted(plain, {"a": ([1, 2], [logprob(1), logprob(7)])})
