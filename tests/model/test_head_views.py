"""A head sees a text from where it follows it: whole, with pages of others, or the end alone, as if that were all."""

import pytest
import torch
from safetensors.torch import load_file

from tenantry.kernels.ops import select_ops
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.heads.head import Target
from tenantry.runtime.model.heads.proposal import MOST_WAITING, HeadProposer
from tenantry.runtime.model.weights import load_weights
from tenantry.runtime.plan import Draw, Row, RowResult
from tenantry.runtime.speculative.tree import DraftTree
from tenantry.runtime.training.heads import Shared
from tests.model.test_heads import PAGE, make

GREEDY = Sampling(max_tokens=60, temperature=0.0)
LENGTH = 50  # tokens of the text; their features and all that follows are noise


@pytest.fixture(scope="module")
def head(bases, tmp_path_factory):
    ops = select_ops("reference")
    config = ModelConfig.from_directory(bases("llama"))
    target = Target(config, load_weights(bases("llama"), config, torch.float32, ops))
    tensors = load_file(bases("llama") / "model.safetensors")
    shared = Shared(tensors["model.embed_tokens.weight"], tensors["lm_head.weight"])
    return make("eagle", target, shared, tmp_path_factory.mktemp("head") / "eagle", ops)[1]


@pytest.fixture(scope="module")
def world():
    noise = torch.Generator().manual_seed(9)
    return torch.randint(0, 101, (64,), generator=noise).tolist(), torch.randn(64, 64, generator=noise)


class Reader:
    """One sequence: its text goes through a proposer, in rows that end where it is told."""

    def __init__(self, proposer, world, sequence, pages, first=0, begin=0):
        """first: position of its text in the world's. begin: what is before was found in its pages."""
        self.proposer, self.sequence, self.pages = proposer, sequence, pages
        self.tokens, self.features = world[0][first:], world[1][first:]
        self.computed = begin

    def read(self, to, follow, ahead=0, draft=None, nodes=0):
        """Compute the text up to a position; a guess of what follows the next token."""
        draw = Draw(GREEDY, 0, to, 1, self.tokens[:to])
        own = self.tokens[self.computed : to]
        row = Row(self.sequence, own, self.computed, self.pages, None, draw, draft, ahead, nodes, follow)
        (found,) = self.proposer.follow([row], [RowResult((self.tokens[to],))], self.features[self.computed : to])
        self.computed = to
        return found and found.tree


def guesses(head, world, first, to, cuts=(), **asked):
    """For a text of the world's from `first` to `to`, followed whole."""
    reader = Reader(HeadProposer(head), world, 1, list(range(20)), first)
    for cut in cuts:
        reader.read(cut - first, follow=True)
    return reader.read(to - first, True, **asked)


def alike(a, b):
    assert (a.tokens, a.parents) == (b.tokens, b.parents)
    assert a.chance == pytest.approx(b.chance, abs=1e-4)


@pytest.mark.parametrize("nodes", [0, 9])
def test_the_end_of_a_text_is_seen_as_if_it_were_all(head, world, nodes):
    reader = Reader(HeadProposer(head), world, 1, list(range(20)))
    reader.read(37, follow=False)
    for to in range(38, LENGTH):
        reader.read(to, follow=False)
    begin = -(-(LENGTH - 1 - MOST_WAITING) // PAGE) * PAGE
    alike(reader.read(LENGTH, False, 4, nodes=nodes), guesses(head, world, begin, LENGTH, ahead=4, nodes=nodes))
    whole, late = (guesses(head, world, first, LENGTH, ahead=4) for first in (0, begin))
    assert whole.chance[0] != pytest.approx(late.chance[0], abs=1e-3)


def test_a_view_once_begun_grows_with_the_text(head, world):
    reader = Reader(HeadProposer(head), world, 1, list(range(20)))
    reader.read(45, follow=False)
    begin = -(-(45 - MOST_WAITING) // PAGE) * PAGE
    reader.read(46, follow=False, ahead=2)
    reader.read(48, follow=False)
    alike(reader.read(LENGTH, False, 4), guesses(head, world, begin, LENGTH, ahead=4))


@pytest.mark.parametrize("cuts", [(), (16, 31)])
def test_what_is_followed_whole_is_seen_whole(head, world, cuts):
    reader = Reader(HeadProposer(head), world, 1, list(range(20)))
    for to in (7, 40, 41):
        reader.read(to, follow=True)
    alike(reader.read(LENGTH, True, 4), guesses(head, world, 0, LENGTH, cuts, ahead=4))


def test_pages_that_another_text_filled_belong_to_the_view_until_somebody_else_writes_there(head, world):
    proposer, shared = HeadProposer(head), [0, 1, 2, 3, 4]
    Reader(proposer, world, 1, [*shared, 5, 6, 7]).read(24, follow=True)
    second = Reader(proposer, world, 2, [*shared, *range(8, 19)], begin=5 * PAGE)
    alike(second.read(LENGTH, False, 4), guesses(head, world, 0, LENGTH, ahead=4))
    Reader(proposer, world, 3, [2, 19], first=7).read(PAGE, follow=False)
    third = Reader(proposer, world, 4, [*shared, *range(8, 19)], begin=5 * PAGE)
    alike(third.read(LENGTH, False, 4), guesses(head, world, 5 * PAGE, LENGTH, ahead=4))


def test_nothing_is_guessed_while_less_than_a_page_is_known(head, world):
    reader = Reader(HeadProposer(head), world, 1, list(range(20)), begin=2 * PAGE + 1)
    assert reader.read(2 * PAGE + 3, False, 4) is None
    assert reader.read(3 * PAGE, False, 4) is None
    assert reader.read(3 * PAGE + 2, False, 4) is not None


def test_guesses_that_stood_are_part_of_what_waits(head, world):
    tokens, features = world
    reader = Reader(HeadProposer(head), world, 1, list(range(20)))
    reader.read(40, follow=True)
    other = (tokens[41] + 1) % 101
    draft = DraftTree((other, tokens[41], tokens[42]), (-1, -1, 1))
    draw = Draw(GREEDY, 0, 41, 1, tokens[:41])
    lines = torch.stack([features[40], torch.zeros(64), features[41], features[42]])
    row = Row(1, tokens[40:41], 40, reader.pages, None, draw, draft)
    reader.proposer.follow([row], [RowResult(tuple(tokens[41:44]), accepted=2)], lines)
    reader.computed = 43
    alike(reader.read(44, True, 3), guesses(head, world, 0, 44, ahead=3))
