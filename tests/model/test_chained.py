"""A draft model's guesses in one call are those of level by level: the same tokens, the same bits in its pages."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.attention.plan import CHUNK
from tenantry.kernels.ops import select_ops
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.chained import MOST_GIVEN
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.drafter import Drafter
from tenantry.runtime.model.heads.adapted import adapters_of, register
from tenantry.runtime.model.heads.eagle import Eagle
from tenantry.runtime.model.heads.head import Target
from tenantry.runtime.model.heads.proposal import HeadProposer
from tenantry.runtime.model.weights import load_weights
from tenantry.runtime.plan import Draw, Row, RowResult
from tenantry.runtime.training.heads import EagleTrainee, Shared, head_config
from tests.model.conftest import SHAPE, randomise
from tests.model.test_heads import randomised, saved

PAGE, PAGES, POSITIONS = 16, 64, 320
OPS = select_ops("cpu")
pytestmark = pytest.mark.skipif(OPS.name != "cpu", reason="without numba nothing is compiled")
SAMPLINGS = {"greedy": {"temperature": 0.0}, "temperature": {"temperature": 0.9, "seed": 5}}
FOR = b"f" * 32  # an adapter of the target, for which the draft model has a LoRA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A draft model of two layers with a LoRA for one adapter."""
    directory = tmp_path_factory.mktemp("draft") / "draft"
    config = transformers.LlamaConfig(**SHAPE | {"num_hidden_layers": 2, "max_position_embeddings": POSITIONS})
    model = transformers.LlamaForCausalLM(config)
    randomise(model, seed=4)
    model.save_pretrained(directory)
    adapted = peft_of(directory, tmp_path_factory.mktemp("lora"))
    spec = BaseSpec.from_config(config.to_dict(), digest_model(directory))
    report = validate(adapted, spec, store=LocalStore(adapters_of(directory)))
    assert report.manifest is not None, report.problems
    register(directory, FOR, report.manifest.digest)
    return directory


def peft_of(base, directory):
    import peft

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    modules = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=modules, task_type="CAUSAL_LM"))
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_" in name:
                p.normal_(0, 0.5 * p.shape[1] ** -0.5, generator=noise)
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    return directory


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def both(folder, request):
    """A drafter that goes in one call, and one that cannot."""
    config, layout = ModelConfig.from_directory(folder), PageLayout(2, 16, PAGE)
    pair = [Drafter(folder, config, OPS, layout, PAGES, request.param, POSITIONS) for _ in range(2)]
    assert pair[0]._chain is not None
    pair[1]._chain = None
    return pair


def text(length, salt):
    return [(7 * i * i + salt) % 101 for i in range(length)]


def ask(drafter, calls):
    """Proposals to a list of steps, each of rows (sequence, text so far, pages, adapter, ahead, nodes, sampling)."""
    found = []
    for rows in calls:
        asked, results = [], []
        for sequence, tokens, pages, adapter, ahead, nodes, sampling in rows:
            draw = Draw(Sampling(max_tokens=99, **sampling), 0, len(tokens) - 1, 3, tokens[:-1])
            known = drafter._known.get(sequence)
            if known is not None and sequence == 1:  # falls behind
                drafter._known[sequence] = known._replace(end=len(tokens) - 4)
            own = tokens[:-1] if known is None else tokens[-2:-1]
            start = len(tokens) - 1 - len(own)
            asked.append(Row(sequence, own, start, pages, adapter, draw, None, ahead, nodes))
            results.append(RowResult((tokens[-1],)))
        found.append([p and p.tree for p in drafter.follow(asked, results, None)])
    return found


def same(a, b, pair, bits=True):
    for mine, theirs in zip(a, b, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            assert (x.tokens, x.parents, x.kind) == (y.tokens, y.parents, y.kind)
            assert x.chance == pytest.approx(y.chance, rel=1e-4)
    for x, y in zip(pair[0].pool.layers, pair[1].pool.layers, strict=True) if bits else ():
        assert torch.equal(x.k, y.k)
        assert torch.equal(x.v, y.v)
        assert torch.equal(x.k_scale, y.k_scale)


@pytest.mark.parametrize("sampling", [*SAMPLINGS])
@pytest.mark.parametrize("adapter", [None, FOR])
def test_chains_are_the_same_bit_for_bit(both, sampling, adapter):
    """Rows of several lengths and depths, one of which reaches another piece of attention on its way."""
    calls = []
    for more in (0, 1, 2, 4):
        rows = [(1, 9, 4, adapter), (2, 40, 2, None), (3, CHUNK - 3, 6, adapter)]
        calls.append([
            (i, text(length + more, i), list(range(20 * (i - 1), 20 * i)), a, ahead, 0, SAMPLINGS[sampling])
            for i, length, ahead, a in rows
        ])  # fmt: skip
    walked = []
    chain = both[0]._chain
    both[0]._chain = lambda *a: walked.append(a[2]) or chain(*a)
    told = [ask(drafter, calls) for drafter in both]
    same(*told, both)
    assert [tree.fitted for tree in told[0][0]] == [adapter is not None, False, adapter is not None]
    assert len(walked) == 4
    assert 1 < max(walked) <= MOST_GIVEN


def test_trees_have_the_same_guesses_and_chances(both):
    calls = [
        [(i, text(20 * i + more, i), list(range(20 * (i - 1), 20 * i)), None, 4, 14, SAMPLINGS["greedy"])
         for i in (1, 2)]
        for more in (0, 1, 3)
    ]  # fmt: skip
    same(*(ask(drafter, calls) for drafter in both), both, bits=False)  # one ends early where guesses are unlikely


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 1.0, "top_p": 0.5}, {"temperature": 0.0, "repetition_penalty": 1.3}, {"temperature": 1.0}],
)
def test_what_is_not_plain_goes_level_by_level(both, sampling):
    nodes = 9 if sampling == {"temperature": 1.0} else 0  # a tree under noise is ranked by it
    calls = [[(1, text(20 + more, 1), list(range(20)), None, 3, nodes, sampling)] for more in (0, 1)]
    both[0]._chain = fail
    same(*(ask(drafter, calls) for drafter in both), both)


def fail(*arguments):
    raise AssertionError("went in one call")


@pytest.fixture(scope="module")
def eagle(bases, tmp_path_factory):
    """Two proposers of one EAGLE head with random weights: one that goes in one call, and one that cannot."""
    config = ModelConfig.from_directory(bases("llama"))
    target = Target(config, load_weights(bases("llama"), config, torch.float32, OPS))
    tensors = load_file(bases("llama") / "model.safetensors")
    shared = Shared(tensors["model.embed_tokens.weight"], tensors["lm_head.weight"])
    trainee = randomised(EagleTrainee(head_config(config, 88), shared, POSITIONS))
    directory = saved(trainee, tmp_path_factory.mktemp("eagle") / "eagle")
    layout = PageLayout(2, 16, PAGE)
    heads = [Eagle(directory, target, OPS, layout, PAGES, torch.float32, POSITIONS) for _ in range(2)]
    assert heads[0].chain is not None
    heads[1].chain = None
    return [HeadProposer(head) for head in heads]


def test_a_heads_chains_are_the_same_whether_in_one_call_or_level_by_level(eagle):
    noise = torch.Generator().manual_seed(3)
    features, told = torch.randn(3, 70, 64, generator=noise), []
    for proposer in eagle:
        computed, found = {1: 0, 2: 0, 3: 0}, []
        for to in ((10, 30, 20), (11, 33, 21), (14, 34, 25)):
            rows, results, lines = [], [], []
            for sequence, end in enumerate(to, 1):
                tokens, start = text(end + 1, sequence), computed[sequence]
                draw = Draw(Sampling(max_tokens=99, temperature=0.0), 0, end, 3, tokens[:end])
                ahead = (4, 2, 0)[sequence - 1] if start else 0
                pages = list(range(20 * (sequence - 1), 20 * sequence))
                rows.append(Row(sequence, tokens[start:end], start, pages, None, draw, None, ahead))
                results.append(RowResult((tokens[end],)))
                lines.append(features[sequence - 1, start:end])
                computed[sequence] = end
            found.append([p and p.tree for p in proposer.follow(rows, results, torch.cat(lines))])
        told.append(found)
    assert sum(tree is not None for step in told[0] for tree in step) == 4
    for mine, theirs in zip(*told, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            assert (x and (x.tokens, x.parents)) == (y and (y.tokens, y.parents))
            assert x is None or x.chance == pytest.approx(y.chance, rel=1e-4)
