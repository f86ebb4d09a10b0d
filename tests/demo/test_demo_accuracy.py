"""What the demo promises: an adapter answers its task exactly, the bare base does not but speaks sensibly."""

from itertools import islice

import pytest
import torch
from demo import evaluate, train
from demo.tasks import TASKS
from demo.tokenizer import load_tokenizer
from peft import PeftModel

COUNT = 30


@pytest.fixture(scope="module")
def tokenizer(demo):
    return load_tokenizer(demo / "model")


@pytest.fixture(scope="module")
def base(demo):
    return train.load(demo / "model")


@pytest.mark.parametrize("name", TASKS)
def test_adapter_answers_held_out_prompts_and_the_base_does_not(demo, tokenizer, base, name):
    assert evaluate.accuracy(base, tokenizer, TASKS[name], COUNT) <= 0.30
    adapted = PeftModel.from_pretrained(train.load(demo / "model"), demo / "adapters" / name).eval()
    assert evaluate.accuracy(adapted, tokenizer, TASKS[name], COUNT) >= 0.90


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Hello!", "Hello! How can I help you today?"),
        ("Where is Alderby?", "Alderby is a town by the sea."),
        ("How much is a kettle?", "A kettle costs 35 coins."),
    ],
)
def test_the_base_answers_plain_questions(tokenizer, base, question, answer):
    assert evaluate.complete(base, tokenizer, [[{"role": "user", "content": question}]])[0] == answer


def test_the_base_copies_names_and_numbers_into_its_reply(tokenizer, base):
    messages = [e.messages for e in islice(TASKS["acme-support"].examples(11, held_out=True), 10)]
    replies = evaluate.complete(base, tokenizer, messages, most=96)
    words = [m[0]["content"].replace(".", " ").replace(",", " ").replace(":", " ").split() for m in messages]
    orders = [next(w for w in text if w.isdigit()) for text in words]
    assert sum(order in reply for order, reply in zip(orders, replies, strict=True)) >= 9


def test_the_draft_often_guesses_the_bases_next_token(demo, tokenizer, base):
    assert evaluate.agreement(base, train.load(demo / "draft"), tokenizer) >= 0.5


def test_a_wrong_answer_does_not_score(tokenizer, base, monkeypatch):
    monkeypatch.setattr(evaluate, "complete", lambda model, tokenizer, talks: ["almost right"] * len(talks))
    assert evaluate.accuracy(base, tokenizer, TASKS["acme-orders"], 5) == 0.0
    monkeypatch.undo()
    right = [e.answer for e in islice(TASKS["acme-orders"].examples(evaluate.HELD_OUT_SEED, held_out=True), 5)]
    monkeypatch.setattr(evaluate, "complete", lambda model, tokenizer, talks: right)
    assert evaluate.accuracy(base, tokenizer, TASKS["acme-orders"], 5) == 1.0
    assert torch.is_inference_mode_enabled() is False
