"""LoRAs of the draft model, one for each adapter, so that it guesses in the adapters' formats too.

Owns their recipe and where they go: canonical blobs beside the draft model, named by the digest of the adapter that
they are for (runtime/model/heads/adapted.py), as the engine looks for them.
"""

import json
import tempfile
from pathlib import Path

from demo.lora import MLP, LoraRecipe, save, train_adapter
from demo.tasks import TASKS
from transformers import PreTrainedTokenizerFast

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.model.heads.adapted import adapters_of, register

RECIPE = LoraRecipe(
    {"r": 32, "lora_alpha": 64, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", *MLP]},
    steps=400,
    rate=4e-3,
    goal=0.15,
)


def train_all(out: Path, tokenizer: PreTrainedTokenizerFast, seed: int, only: list[str] | None) -> None:
    """Train one for each adapter in out/adapters, or those named in `only`, on the adapter's own task."""
    for name in only or TASKS:
        model = train_adapter(out / "draft", tokenizer, TASKS[name], RECIPE, seed)
        with tempfile.TemporaryDirectory() as folder:
            target = digest(out / "adapters" / name, out / "model", LocalStore(Path(folder) / "target"))
            save(model, Path(folder) / "draft")
            own = digest(Path(folder) / "draft", out / "draft", LocalStore(adapters_of(out / "draft")))
        register(out / "draft", target, own)


def digest(adapter: Path, base: Path, store: LocalStore) -> bytes:
    """Validate an adapter into a store. Raises ValueError with all that is wrong with it."""
    spec = BaseSpec.from_config(json.loads((base / "config.json").read_bytes()), digest_model(base))
    report = validate(adapter, spec, store=store)
    if report.manifest is None:
        raise ValueError("; ".join(f"{problem.subject}: {problem.message}" for problem in report.problems))
    return report.manifest.digest
