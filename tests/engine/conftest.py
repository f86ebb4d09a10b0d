"""Tokenizers of both families, made on the spot; a real worker process with the scripted runner."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tenantry.runtime.rehearsal import Requests, WorkerProcess
from tenantry.runtime.text import TextModel

CHATML = """\
{%- for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant') %}
        {{- raise_exception('no such role') }}
    {%- endif %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
BRACKETS = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}\
{% endfor %}
"""
TEXT = [
    "the cat sat on the mat, and the dog — naïve, über-glad — sat on the log",
    "日本語のテキスト と 한국어 문장, emoji 🙂🙃 and 👩‍👩‍👧",
    "system user assistant be brief <|im_ end| > numbers 12345 and    spaces\n\n\tand tabs",
] * 4


def write(directory: Path, tokenizer: Tokenizer, template: str, **special: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(template)
    return directory


def byte_level(directory: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[AddedToken(n, special=True, normalized=False) for n in names],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return write(directory, tokenizer, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def sentencepiece(directory: Path) -> Path:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(TEXT[:1] + TEXT[2:3], trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    return write(directory, Tokenizer.from_str(json.dumps(data)), BRACKETS, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def byte_level_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level(tmp_path_factory.mktemp("byte-level"))


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture
def requests(byte_level_model: Path) -> Requests:
    return Requests(TextModel.load(byte_level_model))


@pytest.fixture
async def spawn(tmp_path: Path, byte_level_model: Path) -> AsyncIterator[Callable[..., Awaitable[WorkerProcess]]]:
    workers: list[WorkerProcess] = []

    async def start(**options: Any) -> WorkerProcess:
        worker = WorkerProcess(tmp_path, byte_level_model, **options)
        workers.append(worker)
        await worker.start()
        return worker

    yield start
    for worker in workers:
        await worker.stop()
