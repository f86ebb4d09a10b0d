"""`tenantry train-drafter` as a person runs it: a process of its own, bars, a table, refusals in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry.platform.cli import training
from tenantry.runtime.training.config import TrainConfig

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
PROMPTS = ("Tell me about Alderby.", "Hello!", "Who are you?", "What is a kettle for?")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def test_from_prompts_to_a_head_and_its_evaluation(prompts, tmp_path):
    command = [
        sys.executable, "-m", "tenantry.platform.cli", "train-drafter", "medusa", "--model", str(DEMO / "model"),
        "--prompts", str(prompts), "--out", str(tmp_path / "heads"),
        "--adapter", str(DEMO / "adapters" / "acme-greeting"),
        "--tokens", "8", "--epochs", "2", "--levels", "2", "--threads", "1", "--held-out", "0.25", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["all"]["prompts"] == found["acme-greeting"]["prompts"] == 1
    assert found == json.loads((tmp_path / "heads" / "evaluation.json").read_text())
    assert "training" in done.stderr
    assert json.loads((tmp_path / "heads" / "config.json").read_text())["medusa_num_heads"] == 2


def test_what_cannot_be_trained_is_refused_in_one_line(prompts, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        training.train_drafter("eagle", model=str(DEMO / "model"), prompts=prompts, out=tmp_path, levels=9)
    assert ended.value.code == 78
    assert "levels: from 1 to 8" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        training.train_drafter("eagle", model=str(tmp_path), prompts=prompts, out=tmp_path / "o")
    assert ended.value.code == 78


def test_the_table_says_how_to_serve_it(capsys):
    config = TrainConfig(kind="clover", model=Path("m"), prompts=Path("p"), out=Path("/here/heads"))
    training.announce(config, {"all": {"prompts": 3, "tokens_per_step": 2.5, "acceptance": [0.8, 0.71]}})
    shown = capsys.readouterr().out
    assert "2.50" in shown
    assert "0.80 0.71" in shown
    assert "--speculate clover:/here/heads" in shown
