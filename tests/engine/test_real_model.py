"""The worker with a real, tiny model and real adapters: mixed together as alone, warmed, dropped, damaged."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.rehearsal import Requests, drain
from tenantry.runtime.text import TextModel


@pytest.fixture(scope="module")
def model(byte_level_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = shutil.copytree(byte_level_model, tmp_path_factory.mktemp("real") / "model")
    vocab = TextModel.load(directory).vocab_size + 3  # output rows that stand for no token, as many models have
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        **shape,
        vocab_size=vocab,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def put_adapter(model: Path, store: LocalStore, scratch: Path, rank: int) -> bytes:
    torch.manual_seed(rank)
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(r=rank, lora_alpha=8 * rank, task_type="CAUSAL_LM", init_lora_weights=False)
    tuned = get_peft_model(base, lora)
    tuned.save_pretrained(scratch / f"r{rank}")
    spec = BaseSpec.from_config(msgspec.json.decode((model / "config.json").read_bytes()), digest_model(model))
    (scratch / f"r{rank}" / "README.md").unlink(missing_ok=True)
    report = validate(scratch / f"r{rank}", spec, store=store)
    assert report.manifest is not None, report.problems
    return report.manifest.digest


async def test_mixed_adapters_answer_together_as_alone(spawn, model: Path, tmp_path: Path):
    store = LocalStore(tmp_path / "adapters")
    adapters = [None, *(put_adapter(model, store, tmp_path, rank) for rank in (4, 16))]
    schedule = ScheduleConfig(max_context=512)
    worker = await spawn(
        model_dir=model, runner="model", dtype="float32", threads=1, adapter_bytes=1 << 20, schedule=schedule
    )
    requests = Requests(TextModel.load(model))
    submits = []
    for n in range(12):
        adapter = adapters[n % 3]
        submit = requests.make(f"the dog sat on the log {n}", adapter=adapter, max_tokens=12, ignore_eos=True)
        submits.append(msgspec.structs.replace(submit, namespace=adapter or bytes(32)))
    worker.client.warm(adapters[1])
    async with asyncio.timeout(10):
        while [a.state for a in worker.client.stats.adapters] != ["resident"]:
            await worker.client.ping()
    alone = [(await drain(worker.client.generate(s)))[0] for s in submits]
    again = [msgspec.structs.replace(s, request_id=f"b{n}") for n, s in enumerate(submits)]
    both = await asyncio.gather(*(drain(worker.client.generate(s)) for s in again))
    assert [tokens for tokens, _, _ in both] == alone
    assert len({str(tokens) for tokens in alone[:3]}) == 3, "the adapters matter"
    worker.client.drop(adapters[1])
    async with asyncio.timeout(10):
        while [a.digest for a in worker.client.stats.adapters] != [adapters[2]]:
            await worker.client.ping()
    worker.client.drop(adapters[2])
    path = store.path(adapters[2])
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    _, _, last = await drain(worker.client.generate(requests.make(adapter=adapters[2])))
    assert last.code == "adapter_unavailable"
    _, _, last = await drain(worker.client.generate(requests.make()))
    assert last.reason in ("length", "stop")
    assert worker.process.returncode is None
