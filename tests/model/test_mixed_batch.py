"""What else is in the step never changes a sequence: any mix of adapters, prefill and decode, any chunking."""

import pytest
import torch

from tenantry.runtime.messages import Sampling

NEW = 12
RANKS = (4, 8, 17, 32, 64)


@pytest.fixture(scope="module")
def tenants(serve, make_adapter):
    """The engine and six kinds of rows: one adapter of each rank, and the base."""
    served = serve("qwen2")
    shapes = ("all-linear", ["q_proj", "v_proj"], ["gate_proj", "down_proj"], "all-linear", ["o_proj", "k_proj"])
    digests = [
        served.add(make_adapter("qwen2", seed=rank, r=rank, lora_alpha=2 * rank, target_modules=targets))
        for rank, targets in zip(RANKS, shapes, strict=True)
    ]
    return served, [*digests, None]


def requests(count: int, adapters):
    noise = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 40, (count,), generator=noise).tolist()
    prompts = [torch.randint(0, 101, (n,), generator=noise).tolist() for n in lengths]
    return [(prompt, adapters[i % len(adapters)]) for i, prompt in enumerate(prompts)]


def alone(served, prompt, adapter) -> list[int]:
    served.driver.reset()
    return served.driver.generate([served.driver.track(prompt, adapter)], NEW)[0]


def test_thirty_two_mixed_rows_generate_what_each_generates_alone(tenants):
    served, adapters = tenants
    work = requests(32, adapters)
    expected = [alone(served, *request) for request in work]
    assert len({tuple(tokens) for tokens in expected}) > 20, "requests that answer alike prove little"
    served.driver.reset()
    together = served.driver.generate([served.driver.track(*request) for request in work], NEW)
    assert together == expected


def test_each_adapter_answers_differently_from_base_and_from_each_other(tenants):
    served, adapters = tenants
    answers = {tuple(alone(served, [5, 9, 3, 77], adapter)) for adapter in adapters}
    assert len(answers) == len(adapters)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_chunked_prefill_beside_others_generates_the_same(tenants, chunk):
    served, adapters = tenants
    work = requests(12, adapters)
    expected = [alone(served, *request) for request in work]
    served.driver.reset()
    assert served.driver.generate([served.driver.track(*request) for request in work], NEW, chunk) == expected


def test_rows_may_join_while_others_decode(tenants):
    served, adapters = tenants
    work = requests(9, adapters)
    expected = [alone(served, *request) for request in work]
    served.driver.reset()
    tracks = [served.driver.track(*request) for request in work]
    for joined in range(1, len(tracks)):
        served.driver.step(tracks[:joined], chunk=5)
    assert served.driver.generate(tracks, NEW) == [
        tokens + track.generated[NEW:] for tokens, track in zip(expected, tracks, strict=True)
    ]


def test_decoding_equals_recomputing_everything_at_every_step(tenants):
    served, adapters = tenants
    for adapter in adapters:
        tokens = [11, 42, 42, 8]
        stepwise = alone(served, tokens, adapter)
        for drawn in stepwise:
            served.driver.reset()
            assert int(served.driver.logits([tokens], adapter)[0].argmax()) == drawn
            tokens = [*tokens, drawn]


def test_rows_of_one_adapter_at_the_batch_edges_leave_base_rows_bitwise_alone(tenants):
    served, adapters = tenants
    driver, prompt = served.driver, [3, 1, 4, 1, 5]
    driver.reset()
    base = served.runner.forward([driver.row(driver.track(prompt)) for _ in range(3)]).logits
    mixed = served.runner.forward(
        [driver.row(driver.track(prompt, adapter)) for adapter in (adapters[0], None, adapters[4])]
    ).logits
    assert torch.equal(base[1], mixed[1])
    assert not torch.allclose(base[0], mixed[0], atol=1e-2)
    assert not torch.allclose(base[2], mixed[2], atol=1e-2)


def test_seeded_sampling_is_independent_of_the_batch(tenants):
    served, adapters = tenants
    hot = [Sampling(max_tokens=NEW, temperature=1.3, top_k=40, top_p=0.95, seed=seed) for seed in range(8)]

    def tracks():
        served.driver.reset()
        return [served.driver.track([2, 3, 4], adapters[i % 6], sampling) for i, sampling in enumerate(hot)]

    together = served.driver.generate(tracks(), NEW, chunk=2)
    apart = [served.driver.generate([track], NEW)[0] for track in tracks()]
    assert together == apart
    assert len({tuple(tokens) for tokens in together}) == len(hot)


def test_logprobs_are_those_of_transformers(serve, oracle, prompts):
    driver = serve("qwen2").driver
    asked = Sampling(max_tokens=1, temperature=0.0, logprobs=5)
    tracks = [driver.track(prompt, None, asked) for prompt in prompts]
    driver.step(tracks)
    theirs = oracle("qwen2", prompts).log_softmax(-1)
    for track, row in zip(tracks, theirs, strict=True):
        best = row.topk(5)
        (given,) = track.logprobs
        assert [token for token, _ in given.top] == best.indices.tolist()
        assert [p for _, p in given.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert (given.token, given.logprob) == given.top[0]


def test_bf16_and_int8_pages_rarely_change_a_token_with_the_batch(serve, make_adapter, record_property, capsys):
    """Exact in fp32; here the last bits may depend on how many rows share a product. The rate is printed."""
    served = serve("qwen2", dtype="bfloat16", kv_dtype="int8")
    adapters = [
        *(served.add(make_adapter("qwen2", seed=r, r=r, target_modules="all-linear")) for r in (4, 17, 64)),
        None,
    ]
    work = requests(32, adapters)
    expected = [alone(served, *request) for request in work]
    served.driver.reset()
    together = served.driver.generate([served.driver.track(*request) for request in work], NEW)
    pairs = [
        (a, b) for ours, theirs in zip(together, expected, strict=True) for a, b in zip(ours, theirs, strict=True)
    ]
    rate = sum(a != b for a, b in pairs) / len(pairs)
    record_property("differing_tokens", rate)
    with capsys.disabled():
        print(f"\nbf16, int8 KV: {rate:.1%} of {len(pairs)} tokens differ between batch and alone")
    assert rate < 0.1
