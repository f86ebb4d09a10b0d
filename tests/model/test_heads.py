"""Heads as served compute what heads as trained computed, and what the published code of EAGLE-3 computes."""

import dataclasses

import pytest
import torch
import triton
from safetensors.torch import load_file, save_file

from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.ops import select_ops
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.errors import ModelUnsupported, WeightsInvalid
from tenantry.runtime.model.heads.clover import Clover
from tenantry.runtime.model.heads.eagle import Eagle
from tenantry.runtime.model.heads.files import write_config
from tenantry.runtime.model.heads.head import Frontier, Target, Text
from tenantry.runtime.model.heads.medusa import Medusa
from tenantry.runtime.model.weights import load_weights
from tenantry.runtime.plan import Row
from tenantry.runtime.training.heads import CloverTrainee, EagleTrainee, MedusaTrainee, Shared, Texts, head_config

PAGE, PAGES, POSITIONS, LEVELS = 4, 32, 64, 4
OPS = select_ops("reference")
INTERPRETED = pytest.mark.skipif(
    not triton.knobs.runtime.interpret,
    reason="no TRITON_INTERPRET=1 in the environment, which `make test` puts there",
)
LAYOUT = PageLayout(2, 16, PAGE, dtype=torch.float32)


@pytest.fixture(scope="module")
def target(bases):
    config = ModelConfig.from_directory(bases("llama"))
    weights = load_weights(bases("llama"), config, torch.float32, OPS)
    return Target(config, weights)


@pytest.fixture(scope="module")
def shared(bases, target):
    tensors = load_file(bases("llama") / "model.safetensors")
    return Shared(tensors["model.embed_tokens.weight"], tensors["lm_head.weight"])


def randomised(module):
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            if "norm" in name:
                p.uniform_(0.5, 1.5, generator=noise)
            else:
                p.normal_(0, p.shape[-1] ** -0.5, generator=noise)
    return module


def saved(module, folder):
    folder.mkdir()
    save_file({name: t.contiguous() for name, t in module.state_dict().items()}, folder / "model.safetensors")
    write_config(folder, module.described())
    return folder


def make(kind, target, shared, folder, ops=OPS):
    """A trainee with random weights, and the head that serves it."""
    config = head_config(target.config, 80)
    if kind == "medusa":
        trainee = randomised(MedusaTrainee(target.config, shared, LEVELS, own_heads=True))
        return trainee, Medusa(saved(trainee, folder), target, ops, torch.float32)
    if kind == "eagle":
        trainee = randomised(EagleTrainee(config, shared, POSITIONS))
        return trainee, Eagle(saved(trainee, folder), target, ops, LAYOUT, PAGES, torch.float32, POSITIONS)
    trainee = randomised(CloverTrainee(config, shared, POSITIONS, LEVELS))
    return trainee, Clover(saved(trainee, folder), target, ops, LAYOUT, PAGES, torch.float32, POSITIONS)


def text_of(tokens, features, cuts=(), guessing=True):
    """The rows in which a text of T tokens reaches a head: cut in chunks, each with the token after its last."""
    pages = list(range(PAGES))
    ends = [*cuts, len(tokens) - 1]
    for start, end in zip([0, *cuts], ends, strict=True):
        row = Row(1, tokens[start + 1 : end + 1].tolist(), start, pages, None, None)
        yield Text([row], features[start:end], [0] if end == ends[-1] else [], [None])


@pytest.mark.parametrize("device", ["reference", pytest.param("cuda", marks=INTERPRETED)])
@pytest.mark.parametrize("kind", ["medusa", "eagle", "clover"])
def test_a_served_head_guesses_what_the_trained_one_does(kind, device, target, shared, tmp_path):
    ops = dataclasses.replace(select_ops(device), device="cpu")  # Triton is interpreted here
    trainee, head = make(kind, target, shared, tmp_path / kind, ops)
    noise = torch.Generator().manual_seed(9)
    tokens = torch.randint(0, 101, (23,), generator=noise)
    features = torch.randn(23, 64, generator=noise)
    known = 18  # tokens of the text; what follows is guessed, and happens to be right
    at = torch.tensor([[known - 2]])
    with torch.no_grad():
        guessed = trainee.guess(Texts(features[None], tokens[None], at), LEVELS)
        expected = [trainee.logits(g.states[0], level) for level, g in enumerate(guessed)]
    for text in text_of(tokens[:known], features, cuts=(3, 4, 11)):
        level = head.follow(text)
    found = [level.logits]
    for depth in range(1, LEVELS):
        path = tuple(tokens[known : known + depth].tolist())
        level = head.expand(text, Frontier([0], [path], level.states))
        found.append(level.logits)
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.std() > 0.3, "logits this small would hide a difference"
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


THIRD = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 1, "vocab_size": 101,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 256,
    "draft_vocab_size": 40, "architectures": ["LlamaForCausalLMEagle3"], "hidden_act": "silu", "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float16", "use_cache": True, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def third(tmp_path):
    """A folder as the published EAGLE-3 code saves one, with random weights."""
    noise = torch.Generator().manual_seed(1)
    shapes = {
        "fc.weight": (64, 192), "midlayer.self_attn.q_proj.weight": (64, 128), "lm_head.weight": (40, 64),
        "midlayer.self_attn.k_proj.weight": (32, 128), "midlayer.self_attn.v_proj.weight": (32, 128),
        "midlayer.self_attn.o_proj.weight": (64, 64), "midlayer.mlp.gate_proj.weight": (80, 64),
        "midlayer.mlp.up_proj.weight": (80, 64), "midlayer.mlp.down_proj.weight": (64, 80),
    }  # fmt: skip
    tensors = {name: torch.randn(shape, generator=noise) * shape[1] ** -0.5 for name, shape in shapes.items()}
    for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm"):
        tensors[f"midlayer.{name}.weight"] = 0.5 + torch.rand(64, generator=noise)
    tensors["norm.weight"] = 0.5 + torch.rand(64, generator=noise)
    ids = torch.randperm(101, generator=noise)[:40].sort().values
    tensors["d2t"] = ids - torch.arange(40)
    tensors["t2d"] = torch.zeros(101, dtype=torch.bool).scatter_(0, ids, True)
    save_file(tensors, tmp_path / "model.safetensors")
    write_config(tmp_path, THIRD)
    return tmp_path, tensors, ids


class PublishedEagle3:
    """The arithmetic of the published code, over a whole text at once and then one guess after the other."""

    def __init__(self, tensors, embedding):
        self.t, self.embedding, self.keys, self.values = tensors, embedding, [], []

    def norm(self, x, name):
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * self.t[name]

    def rotated(self, x, position):
        angle = position / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
        cos, sin = (torch.cat((f(angle),) * 2) for f in (torch.cos, torch.sin))
        return x * cos + torch.cat((-x[..., 8:], x[..., :8]), -1) * sin

    def step(self, hidden, token):
        """One position: the hidden state that stands for it, and the logits after it."""
        at, position = "midlayer.self_attn", len(self.keys)
        embedded = self.norm(self.embedding[token], "midlayer.input_layernorm.weight")
        x = torch.cat((embedded, self.norm(hidden, "midlayer.hidden_norm.weight")))
        q = self.rotated((self.t[f"{at}.q_proj.weight"] @ x).view(4, 16), position)
        self.keys.append(self.rotated((self.t[f"{at}.k_proj.weight"] @ x).view(2, 16), position))
        self.values.append((self.t[f"{at}.v_proj.weight"] @ x).view(2, 16))
        k, v = (torch.stack(part).repeat_interleave(2, 1) for part in (self.keys, self.values))
        seen = torch.einsum("ht,thd->hd", (torch.einsum("hd,thd->ht", q, k) / 4).softmax(-1), v)
        hidden = hidden + self.t[f"{at}.o_proj.weight"] @ seen.flatten()
        y = self.norm(hidden, "midlayer.post_attention_layernorm.weight")
        inner = torch.nn.functional.silu(self.t["midlayer.mlp.gate_proj.weight"] @ y)
        inner = inner * (self.t["midlayer.mlp.up_proj.weight"] @ y)
        hidden = hidden + self.t["midlayer.mlp.down_proj.weight"] @ inner
        return hidden, self.t["lm_head.weight"] @ self.norm(hidden, "norm.weight")


def test_the_published_layout_of_eagle_3_is_read_and_computed_as_published(third, target, shared):
    folder, tensors, ids = third
    head = Eagle(folder, target, OPS, LAYOUT, PAGES, torch.float32, POSITIONS)
    assert head.taps == (2, 1, 0)
    noise = torch.Generator().manual_seed(2)
    tokens, features = torch.randint(0, 101, (9,), generator=noise), torch.randn(8, 192, generator=noise)
    theirs = PublishedEagle3(tensors, shared.embedding)
    for i in range(8):
        hidden, logits = theirs.step(tensors["fc.weight"] @ features[i], tokens[i + 1])
    for text in text_of(tokens, features, cuts=(5,)):
        level = head.follow(text)
    path = ()
    for _ in range(3):
        unknown = torch.ones(101, dtype=torch.bool).scatter_(0, ids, False)
        torch.testing.assert_close(level.logits[0, ids], logits, rtol=0, atol=1e-4)
        assert level.logits[0, unknown].isneginf().all()
        path = (*path, int(level.logits[0].argmax()))
        hidden, logits = theirs.step(hidden, path[-1])
        level = head.expand(text, Frontier([0], [path], level.states))


def test_an_embedding_of_eagles_own_is_read_in_place_of_the_targets(target, shared, tmp_path):
    """The published code of the first generation saves the target's once more, and says whether fc has a bias."""
    trainee, _ = make("eagle", target, shared, tmp_path / "eagle")
    folder = tmp_path / "published"
    saved(trainee, folder)
    noise = torch.Generator().manual_seed(5)
    tensors = load_file(folder / "model.safetensors") | {"embed_tokens.weight": torch.randn(101, 64, generator=noise)}
    save_file(tensors, folder / "model.safetensors")
    write_config(folder, trainee.described() | {"bias": True})
    own = shared._replace(embedding=tensors["embed_tokens.weight"])
    theirs = EagleTrainee(head_config(target.config, 80), own, POSITIONS)
    theirs.load_state_dict(trainee.state_dict())
    tokens, features = torch.randint(0, 101, (9,), generator=noise), torch.randn(9, 64, generator=noise)
    with torch.no_grad():
        (guessed,) = theirs.guess(Texts(features[None], tokens[None], torch.tensor([[7]])), 1)
        expected = theirs.logits(guessed.states[0], 0)
    head = Eagle(folder, target, OPS, LAYOUT, PAGES, torch.float32, POSITIONS)
    for text in text_of(tokens, features):
        level = head.follow(text)
    torch.testing.assert_close(level.logits, expected, rtol=0, atol=1e-4)


def test_branches_of_a_tree_do_not_see_each_other(third, target):
    """Two guesses after one, expanded together, against each alone."""
    folder, _, _ = third
    head = Eagle(folder, target, OPS, LAYOUT, PAGES, torch.float32, POSITIONS)
    noise = torch.Generator().manual_seed(4)
    tokens, features = torch.randint(0, 101, (9,), generator=noise), torch.randn(8, 192, generator=noise)
    (text,) = text_of(tokens, features)

    def logits(paths):
        level = head.follow(text)
        level = head.expand(text, Frontier([0], [paths[0][:1]], level.states))
        states = level.states.expand(len(paths), -1)
        level = head.expand(text, Frontier([0] * len(paths), [path[:2] for path in paths], states))
        return head.expand(text, Frontier([0] * len(paths), paths, level.states)).logits

    together = logits([(5, 8, 9), (5, 7, 3)])
    for found, path in zip(together, [(5, 8, 9), (5, 7, 3)], strict=True):
        torch.testing.assert_close(found, logits([path])[0], rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_what_does_not_fit_is_refused_by_name(third, target, shared, tmp_path):
    folder, tensors, _ = third

    def refusal(kind=ModelUnsupported, **changes):
        write_config(folder, THIRD | changes)
        with pytest.raises(kind) as refused:
            Eagle(folder, target, OPS, LAYOUT, PAGES, torch.float32, POSITIONS)
        return str(refused.value)

    assert refusal(hidden_size=32, head_dim=16).startswith("hidden_size: the head is not one layer of 64")
    assert refusal(vocab_size=100).startswith("hidden_size")
    assert "sliding_tile: is not understood" in refusal(sliding_tile=3)
    assert "lm_head.weight" in refusal(WeightsInvalid, draft_vocab_size=41)
    save_file({n: t for n, t in tensors.items() if n != "fc.weight"}, folder / "model.safetensors")
    assert refusal(WeightsInvalid) == "tensors are missing: fc.weight"
    save_file(tensors | {"extra": torch.ones(1)}, folder / "model.safetensors")
    assert refusal(WeightsInvalid) == "tensors are not expected: extra"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(WeightsInvalid) == "only safetensors are read, and there are none: pytorch_model.bin"
    with pytest.raises(ModelUnsupported, match=r"config.json: nothing has none"):
        Medusa(tmp_path / "nothing", target, OPS, torch.float32)
