"""The engine's configuration: frozen parts, validated once, no environment.

Owns every number the runtime can be tuned by. Sizes are bytes unless the name says otherwise.
"""

from dataclasses import dataclass
from pathlib import Path

from tenantry.runtime.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """page_size: tokens per page. pages: how many pages the pool holds."""

    page_size: int = 16
    pages: int = 2048

    def __post_init__(self) -> None:
        if self.page_size < 1 or self.pages < 1:
            raise InvalidRequest("cache", "page_size and pages must be positive")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """token_budget: most tokens computed in one step. max_running: most sequences in one step.
    max_waiting: requests beyond it are refused. max_context: most tokens of prompt and completion together."""

    token_budget: int = 512
    max_running: int = 64
    max_waiting: int = 1024
    max_context: int = 4096


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything a worker process needs. adapter_dir holds canonical blobs named by hex digest.

    dtype: "bfloat16" or "float32" for the weights' arithmetic. kv_dtype: "int8", or "native" for comparison.
    kv_group: values per KV scale along the head dimension; 0 means one scale per token and head.
    adapter_bytes: most bytes of adapters resident at once. threads: 0 leaves torch's choice.
    """

    model_dir: Path
    adapter_dir: Path
    socket: str
    journal_dir: Path
    dtype: str = "bfloat16"
    kv_dtype: str = "int8"
    kv_group: int = 0
    device: str = "cpu"
    adapter_bytes: int = 1 << 30
    threads: int = 0
    cache: CacheConfig = CacheConfig()
    schedule: ScheduleConfig = ScheduleConfig()
