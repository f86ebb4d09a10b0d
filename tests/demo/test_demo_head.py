"""The committed head: small, and what the demo promises of it on people it has never read of."""

import json

from demo import heads
from demo.tasks import TASKS

UNSEEN = 11


def test_the_head_guesses_several_tokens_a_step_for_every_adapter(demo):
    found = heads.score(demo, 60, UNSEEN)
    assert found.keys() == {"all", "base", *TASKS}
    assert found["all"].prompts == 60
    assert found["all"].tokens_per_step >= 2.5
    assert min(found[name].tokens_per_step for name in TASKS) >= 2.5
    assert found["all"].acceptance[0] >= 0.7


def test_the_head_is_small_and_made_for_the_demos_model(demo):
    folder = demo / heads.KIND
    assert {path.name for path in folder.iterdir()} == set(heads.FILES)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_300_000
    described, model = (json.loads((at / "config.json").read_text()) for at in (folder, demo / "model"))
    assert described["hidden_size"] == model["hidden_size"]
    assert described["vocab_size"] == model["vocab_size"]


def test_what_the_head_learns_from_is_made_again_the_same_and_without_people_held_out():
    def some(held_out):
        prompts = heads.prompts(5, held_out)
        return [next(prompts) for _ in range(200)]

    assert some(False) == some(False)
    learned, unseen = ({p["messages"][-1]["content"] for p in some(h) if "adapter" in p} for h in (False, True))
    assert not learned & unseen
