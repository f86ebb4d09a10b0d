"""A base model's directory as the command line sees it: where it is, what its config says, how long a context may be.

Owns no weights and no arithmetic; the engine reads the rest and refuses what it does not understand.
"""

import json
from pathlib import Path
from typing import Any

from tenantry.platform.core.errors import ConfigurationError


def find_model(name: str) -> Path:
    """A directory as it is; anything else is a hub id, fetched into the hub's own cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(f"--model: {name} is no directory, and the hub did not give it: {error}") from error


def read_config(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / "config.json").read_text()))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"TENANTRY_MODEL_DIR: config.json cannot be read: {error}") from error


def choose_context(wanted: int | None, model: Path, pool: int) -> int:
    """Tokens of prompt and completion together: what was asked for, else all that the model and the KV pool take.
    Raises ConfigurationError for more than the model's positions or attention window."""
    config = read_config(model)
    windowed = config.get("use_sliding_window", config.get("model_type") == "mistral")
    limits = [config.get("max_position_embeddings"), config.get("sliding_window") if windowed else None]
    most = min((n for n in limits if isinstance(n, int)), default=pool)
    if wanted is not None and wanted > most:
        raise ConfigurationError(f"TENANTRY_MAX_CONTEXT: {wanted} is more than the model's {most}")
    return wanted if wanted is not None else min(most, pool)
