"""The engine's configuration: frozen parts, validated once, no environment.

Owns every number the runtime can be tuned by. Sizes are bytes unless the name says otherwise.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from tenantry.runtime.errors import InvalidRequest

Role = Literal["both", "prefill", "decode"]

# What it takes to get evicted things back: estimates for two cores, not measurements. Only their ratio is used.
LOAD_BYTES_S = 5e8
COMPUTE_TOKENS_S = 1e3


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """page_size: tokens per page. pages: how many pages the pool holds. tenant_min, tenant_max: cached pages of one
    tenant that others' never push out, and beyond which its own go first; 0 for none."""

    page_size: int = 16
    pages: int = 2048
    tenant_min: int = 0
    tenant_max: int = 0

    def __post_init__(self) -> None:
        if self.page_size < 1 or self.pages < 1:
            raise InvalidRequest("cache", "page_size and pages must be positive")
        if min(self.tenant_min, self.tenant_max) < 0 or 0 < self.tenant_max < self.tenant_min:
            raise InvalidRequest("cache", "a tenant's ceiling is not below its floor")


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """One memory of equal blocks for KV pages and adapters. block_bytes: one page of all layers.

    kv_min, adapter_min: blocks that the other side never takes. A request must fit kv_min and an adapter adapter_min,
    for that is all that either can count on. load_s, compute_s: seconds to load one block of an adapter again, and to
    compute one page again; only their ratio matters.
    """

    blocks: int
    block_bytes: int
    kv_min: int
    adapter_min: int
    load_s: float = 1.0
    compute_s: float = 1.0

    def __post_init__(self) -> None:
        if min(self.blocks, self.block_bytes, self.kv_min, self.adapter_min) < 1:
            raise InvalidRequest("memory", "blocks, their bytes and both floors must be positive")
        if self.kv_min + self.adapter_min > self.blocks:
            raise InvalidRequest("memory", f"floors of {self.kv_min} and {self.adapter_min} are over {self.blocks}")


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """token_budget: most tokens computed in one step. max_running: most sequences in one step.
    max_waiting: requests beyond it are refused. max_context: most tokens of prompt and completion together.
    max_waiting_tenant: of max_waiting, what one tenant may have waiting.
    itl_target_ms: how long a step in which anything decodes should take at most; prompts get what is left of it, a
    page at least. 0 gives them the whole token budget.
    policy: "mixed": prompts are computed beside decoding rows. "prefill-first": decoding waits while a prompt can go
    on. Which of the two answers sooner or faster depends on the traffic; the first is what itl_target_ms is about.
    batch_delay_ms: with nothing decoding, how long the first request waits for others to be computed with it, 0-10.
    """

    token_budget: int = 512
    max_running: int = 64
    max_waiting: int = 1024
    max_context: int = 4096
    max_waiting_tenant: int = 512
    itl_target_ms: float = 0.0
    policy: Literal["mixed", "prefill-first"] = "mixed"
    batch_delay_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.max_waiting_tenant < 1:
            raise InvalidRequest("max_waiting_tenant", "must be at least 1")
        if not 0 <= self.itl_target_ms <= 60_000:
            raise InvalidRequest("itl_target_ms", "must be between 0 and 60000")
        if not 0 <= self.batch_delay_ms <= 10:
            raise InvalidRequest("batch_delay_ms", "must be between 0 and 10")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything a worker process needs. adapter_dir holds canonical blobs named by hex digest.

    dtype: "bfloat16" or "float32" for the weights' arithmetic. kv_dtype: "int8"; "bfloat16", or
    "native" (the activations' dtype), for comparison.
    weights: how matrices are held: "native" (dtype), "w8a16", "w8a8" or "w4a16" (kernels/quant/schemes.py).
    adapter_dtype: "native" (dtype), or "int8" where an adapter loses little by it (kernels/lora/int8.py).
    kv_group: values per KV scale along the head dimension; 0 means one scale per token and head.
    memory: "split": cache.pages pages of KV, and adapter_bytes for adapters. "unified": one arena for both, in which
    those are what each side is sure of. memory_bytes: the arena; 0 takes twice the floors, but never over half of the
    machine's memory if the floors need less. threads: 0 leaves torch's choice.
    host_cache_bytes: host memory for KV that the device let go; 0 for none. disk_cache_bytes: of it on disk, in
    disk_cache_dir, disk_tenant_bytes at most of one tenant (0: no such limit); pages go there through host memory.
    memory_pressure: share of the host memory that this process may have, from which on it gives up what it keeps
    there, then refuses (runtime/pressure.py); 0: never.
    drain_s: how long running requests may take to end after SIGTERM.
    runner: "model"; or "scripted", which computes nothing and needs only the model's tokenizer, to load-test a
    gateway; or "scripted-faults", which also fails on command (runtime.testing). step_s: seconds of a scripted step.
    role: what this engine is there for among others (platform/fleet/router.py); each can do everything.
    hand_off_dir: where engines of this host leave computed prompts for each other, best in memory; None: nowhere.
    name: of this engine, and of its folder there. hand_off_s: how long a prompt is expected before it is computed
    here, and how long one is kept for its reader.
    speculate: see runtime.speculative.options. speculate_depth: tokens guessed always; 0 lets measurements decide.
    speculate_verify: "sample": a seed's own text; "reject": the same distribution; "typical": lossy (model/judge.py).
    """

    model_dir: Path
    adapter_dir: Path
    socket: str
    journal_dir: Path
    dtype: str = "bfloat16"
    kv_dtype: str = "int8"
    weights: Literal["native", "w8a16", "w8a8", "w4a16"] = "native"
    adapter_dtype: Literal["native", "int8"] = "native"
    kv_group: int = 0
    device: str = "cpu"
    adapter_bytes: int = 1 << 30
    memory: Literal["unified", "split"] = "split"
    memory_bytes: int = 0
    host_cache_bytes: int = 0
    disk_cache_bytes: int = 0
    disk_tenant_bytes: int = 0
    disk_cache_dir: Path = Path()
    memory_pressure: float = 0.95
    threads: int = 0
    drain_s: float = 30.0
    runner: Literal["model", "scripted", "scripted-faults"] = "model"
    step_s: float = 0.0
    role: Role = "both"
    name: str = "engine"
    hand_off_dir: Path | None = None
    hand_off_s: float = 10.0
    speculate: str = "off"
    speculate_depth: int = 0
    speculate_verify: Literal["sample", "reject", "typical"] = "sample"
    cache: CacheConfig = CacheConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    def __post_init__(self) -> None:
        if min(self.host_cache_bytes, self.disk_cache_bytes, self.disk_tenant_bytes) < 0:
            raise InvalidRequest("host_cache_bytes", "tiers of KV have a size, or 0 for none")
        if not 0 <= self.memory_pressure <= 1:
            raise InvalidRequest("memory_pressure", "is a share of the memory, or 0 for never")
        if self.disk_cache_bytes and not self.host_cache_bytes:
            raise InvalidRequest("disk_cache_bytes", "pages reach disk through host memory, which is off")

    def arena(self, block_bytes: int) -> ArenaConfig:
        """The arena of a model whose pages take block_bytes. Raises InvalidRequest if memory_bytes is too little."""
        kv, adapters = self.cache.pages, -(-self.adapter_bytes // block_bytes)
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        chosen = max(kv + adapters, min(2 * (kv + adapters), machine // 2 // block_bytes))
        blocks = self.memory_bytes // block_bytes if self.memory_bytes else chosen
        if blocks < kv + adapters:
            need = (kv + adapters) * block_bytes
            raise InvalidRequest("memory_bytes", f"the floors of KV and adapters need {need} bytes")
        load_s, compute_s = block_bytes / LOAD_BYTES_S, self.cache.page_size / COMPUTE_TOKENS_S
        return ArenaConfig(blocks, block_bytes, kv, adapters, load_s, compute_s)


def write_config(config: EngineConfig, path: Path) -> None:
    """As the JSON that a worker is started with."""
    path.write_bytes(msgspec.json.encode(config, enc_hook=str))


def read_config(path: Path) -> EngineConfig:
    """Raises InvalidRequest, which names a field that is unknown, missing or of the wrong type."""
    try:
        data = msgspec.json.decode(path.read_bytes())
        _refuse_unknown(EngineConfig, data, "")
        return msgspec.convert(data, EngineConfig, dec_hook=lambda _type, value: Path(value))
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidRequest("config", f"{path.name}: {error}") from error


def _refuse_unknown(kind: Any, data: Any, at: str) -> None:
    if not isinstance(data, Mapping) or not is_dataclass(kind):
        return
    known = {field.name: field.type for field in fields(kind)}
    for name, value in data.items():
        if name not in known:
            raise InvalidRequest(f"{at}{name}", "there is no such field in the engine's configuration")
        _refuse_unknown(known[name], value, f"{at}{name}.")
