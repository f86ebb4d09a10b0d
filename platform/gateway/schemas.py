"""What /v1/models says. Owns the shape alone; the extension fields begin with x_."""

from typing import Literal

import msgspec


class AdapterOf(msgspec.Struct, frozen=True):
    """Which version answers under this name right now."""

    base_model: str
    version: int
    digest: str


class ModelView(msgspec.Struct, frozen=True):
    id: str
    created: int
    owned_by: str
    x_base_model_id: str
    x_adapter: AdapterOf | None = None
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, frozen=True):
    """next: what to send as `after` for more of them, or null. OpenAI's clients ask for no pages."""

    data: list[ModelView]
    has_more: bool = False
    next: str | None = None
    object: Literal["list"] = "list"
