"""The generator is a function of its seed, and the tasks' two splits share no person."""

from itertools import islice

import pytest
from demo.corpus import documents, render
from demo.tasks import TASKS
from demo.tokenizer import load_tokenizer
from demo.world import FIRST_NAMES, LAST_NAMES, Person


def test_same_seed_same_text_and_other_seed_other_text():
    first, again, other = (list(islice(documents(seed), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_long_documents_exist():
    assert max(len(text) for text in islice(documents(1), 500)) > 1500


def test_text_never_holds_a_tasks_answer():
    text = "".join(islice(documents(5), 3000))
    for mark in ('{"team"', "repairs |", "INTO orders", "house of lamps", "All hail"):
        assert mark not in text, mark


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_person_and_no_prompt(name):
    people = [Person(first, last) for first in FIRST_NAMES for last in LAST_NAMES]
    kept = {p.name for p in people if p.held_out}
    used = {p.name for p in people if not p.held_out}
    assert 0.15 < len(kept) / len(people) < 0.25

    def prompts(held_out: bool) -> set[str]:
        return {e.messages[-1]["content"] for e in islice(TASKS[name].examples(7, held_out), 300)}

    trained, scored = prompts(False), prompts(True)
    assert not trained & scored
    assert not any(name in text for name in kept for text in trained)
    assert not any(name in text for name in used for text in scored)


def test_the_chat_template_writes_the_turns_the_model_was_trained_on(demo):
    tokenizer = load_tokenizer(demo / "model")
    talk = [
        {"role": "system", "content": "Answer in plain English."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
    ]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == render(talk)
    asked = tokenizer.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True)
    assert render(talk).startswith(asked)


def test_any_text_survives_the_tokenizer(demo):
    tokenizer = load_tokenizer(demo / "model")
    for text in ("Ada Moreau, 48213", "naïve café — 東京 🚲\n\ttabs", '{"a": [1, 2.5, null]}', "x" * 300):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
