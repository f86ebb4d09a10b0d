"""A crash of one row ends one row; a plan that breaks the contract is refused; adapters come and go off the path."""

import dataclasses
import json
import threading

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from tenantry.adapters import canonical
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.errors import AdapterNotResident, ModelUnsupported
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Load, StepPlan

POISON = 50


@pytest.fixture
def poisoned(bases, tmp_path, engine_config):
    """A runner whose token 50 has an infinite embedding."""
    for path in bases("llama").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.embed_tokens.weight"][POISON] = float("inf")
    save_file(tensors, tmp_path / "model.safetensors")
    runner = ModelRunner(dataclasses.replace(engine_config, model_dir=tmp_path))
    yield runner
    runner.close()


def test_numbers_that_overflow_end_only_their_own_row(poisoned, serve):
    driver, healthy = Driver(poisoned), serve("llama").driver
    tracks = [driver.track(prompt) for prompt in ([1, 2, 3], [4, POISON, 6], [7, 8])]
    driver.generate(tracks, 5)
    assert tracks[1].fault
    assert tracks[1].generated == []
    expected = healthy.generate([healthy.track([1, 2, 3]), healthy.track([7, 8])], 5)
    assert [tracks[0].generated, tracks[2].generated] == expected


def test_a_partly_computed_prompt_that_overflows_is_marked_before_its_pages_are_shared(poisoned):
    driver = Driver(poisoned)
    fine, faulty = driver.track([1] * 9), driver.track([1, POISON, *[1] * 7])
    results = driver.step([fine, faulty], chunk=4)
    assert [bool(result.fault) for result in results] == [False, True]


def test_a_row_with_every_token_forbidden_ends_alone(serve):
    driver = serve("llama").driver
    rows = [driver.row(driver.track([1, 2])) for _ in range(2)]
    nothing = msgspec.structs.replace(rows[0].draw, forbidden=tuple(range(101)))
    rows[0] = msgspec.structs.replace(rows[0], draw=nothing)
    first, second = driver.runner.run(StepPlan(0, tuple(rows))).rows
    assert first.fault
    assert not first.tokens
    assert second.fault is None
    assert len(second.tokens) == 1


def test_an_adapter_that_is_not_resident_is_never_replaced_by_the_base(serve):
    driver = serve("llama").driver
    with pytest.raises(AdapterNotResident):
        driver.step([driver.track([1, 2], adapter=bytes(32))])


def test_a_damaged_blob_is_reported_and_nothing_else_changes(serve, make_adapter):
    served = serve("llama")
    digest = served.stored(make_adapter("llama", seed=3, r=5, target_modules=["q_proj"]))
    path = served.store.path(digest)
    blob = bytearray(path.read_bytes())
    blob[-4000] ^= 0x40
    path.chmod(0o600)
    path.write_bytes(blob)
    with pytest.raises(RuntimeError, match="BlobCorrupt"):
        served.driver.load(digest)
    assert digest not in served.runner.adapters.resident
    assert len(served.driver.generate([served.driver.track([1, 2])], 3)[0]) == 3


def test_a_missing_blob_is_reported(serve):
    with pytest.raises(RuntimeError, match="BlobMissing"):
        serve("llama").driver.load(bytes(31) + b"\1")


def test_an_adapter_of_another_base_is_refused_even_if_it_fits(serve, make_adapter):
    """Both bases have the same shapes; the digest tells them apart."""
    other, served = serve("qwen2"), serve("qwen2", cache=CacheConfig(page_size=4, pages=64))
    digest = other.stored(make_adapter("qwen2", seed=8, r=5, target_modules=["q_proj"]))
    manifest = canonical.verify(other.store.path(digest))
    with other.store.open(digest) as reader:
        tensors = {(e.layer, e.module): (a.copy(), b.copy()) for e, a, b in reader}
    stranger = served.store.put(
        bytes([9]) * 32, manifest.dtype, manifest.modules, lambda e: tensors[e.layer, e.module]
    )
    with pytest.raises(RuntimeError, match="another base"):
        served.driver.load(stranger.digest)


def test_eviction_frees_the_bytes_and_the_digest_and_slots_are_reused(serve, make_adapter):
    served = serve("mistral")
    adapters, driver = served.runner.adapters, served.driver
    digests = [served.add(make_adapter("mistral", seed=i, r=4 + i, target_modules=["q_proj"])) for i in range(3)]
    driver.reset()
    answers = {d: driver.generate([driver.track([9, 8, 7], d)], 8)[0] for d in digests}
    before = adapters.nbytes
    served.runner.run(StepPlan(0, (), evict=(digests[1],)))
    assert adapters.nbytes < before
    assert digests[1] not in adapters.resident
    with pytest.raises(AdapterNotResident):
        driver.step([driver.track([1], digests[1])])
    with pytest.raises(AdapterNotResident):
        served.runner.run(StepPlan(0, (), evict=(digests[1],)))
    newcomer = served.add(make_adapter("mistral", seed=9, r=9, target_modules=["q_proj", "down_proj"]))
    driver.load(digests[1])
    driver.reset()
    assert len({*adapters.resident} & {*digests, newcomer}) == 4
    assert {d: driver.generate([driver.track([9, 8, 7], d)], 8)[0] for d in digests} == answers
    assert driver.generate([driver.track([9, 8, 7], newcomer)], 8)[0] not in answers.values()


def test_an_eviction_and_a_load_in_one_plan_reuse_the_memory_at_once(serve, make_adapter):
    served = serve("mistral")
    digest = served.add(make_adapter("mistral", seed=20, r=6, target_modules=["v_proj"]))
    served.runner.run(StepPlan(0, (), load=(Load(digest),), evict=(digest,)))
    served.driver.load()
    while digest not in served.runner.adapters.resident:
        served.runner.run(StepPlan(0, ()))


def test_steps_go_on_while_an_adapter_loads(serve, make_adapter, monkeypatch):
    served = serve("llama")
    digest = served.stored(make_adapter("llama", seed=30, r=7, target_modules=["q_proj"]))
    gate, verify = threading.Event(), canonical.verify

    def slow(path):
        assert threading.current_thread() is not threading.main_thread()
        assert gate.wait(20)
        return verify(path)

    monkeypatch.setattr(canonical, "verify", slow)
    served.runner.run(StepPlan(0, (), load=(Load(digest),)))
    driver = served.driver
    assert len(driver.generate([driver.track([1, 2])], 5)[0]) == 5
    with pytest.raises(AdapterNotResident):
        driver.step([driver.track([1, 2], digest)])
    with pytest.raises(AdapterNotResident):
        served.runner.run(StepPlan(0, (), load=(Load(digest),)))
    gate.set()
    driver.load()
    while digest not in served.runner.adapters.resident:
        served.runner.run(StepPlan(0, ()))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("dtype", {"dtype": "float16"}),
        ("kv_dtype", {"kv_dtype": "int4"}),
        ("weights", {"weights": "w2a2"}),
        ("device", {"device": "abacus"}),
    ],
)
def test_an_unknown_setting_is_refused_by_name(field, changes, serve):
    with pytest.raises(ModelUnsupported) as refused:
        serve("llama", **changes)
    assert refused.value.field == field


def test_a_context_beyond_the_models_is_refused(serve, engine_config):
    with pytest.raises(ModelUnsupported, match="max_context: the model has only 128 positions"):
        serve("mistral-window", schedule=ScheduleConfig(max_context=200))


def test_identity_and_vocabulary_are_the_checkpoints(serve, bases):
    runner = serve("qwen3").runner
    assert runner.vocab_size == json.loads((bases("qwen3") / "config.json").read_bytes())["vocab_size"] == 101
    assert runner.end_tokens == (7,)
    assert len(runner.model_digest) == 32
    assert runner.model_digest != serve("qwen2").runner.model_digest
