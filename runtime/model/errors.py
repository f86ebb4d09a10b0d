"""Why a base model cannot be served, as one tree. Raised while it is loaded, before any request exists.

ModelError
├── ModelUnsupported     a field of its configuration asks for arithmetic that this decoder does not do
├── WeightsInvalid       tensors are missing, unexpected or of another shape than the configuration says
└── AdapterNotResident   a plan names an adapter that is not loaded, or one twice (a bug of ours)
"""


class ModelError(Exception):
    """Every exception of this room."""


class ModelUnsupported(ModelError):
    """field: the key of config.json (or of the engine's configuration) at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class WeightsInvalid(ModelError):
    """names: the tensors at fault, sorted."""

    def __init__(self, message: str, names: list[str]) -> None:
        self.names = sorted(names)
        shown = ", ".join(self.names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        super().__init__(f"{message}: {shown}")


class AdapterNotResident(ModelError):
    pass
