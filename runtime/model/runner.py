"""One StepPlan in, one StepResult out: the only door to the model.

Owns the base model, the KV pool and the resident adapters of one process. It must not know requests, tenants,
text or why the plan is as it is.
"""

from collections.abc import Callable, Sequence
from time import perf_counter

import msgspec
import torch
from torch import Tensor

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.room import Footprint
from tenantry.adapters.store import LocalStore
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.lora.transfer import CudaCopies
from tenantry.kernels.ops import select_ops, warm_up
from tenantry.runtime.cache.pool import make_pool
from tenantry.runtime.config import EngineConfig
from tenantry.runtime.model.compaction import compact
from tenantry.runtime.model.config import ModelConfig
from tenantry.runtime.model.decoder import Decoder, Output, lora_sites
from tenantry.runtime.model.errors import ModelUnsupported
from tenantry.runtime.model.forward import CudaCapture, Eager, Forward, Graphed
from tenantry.runtime.model.judge import Judge
from tenantry.runtime.model.lora import Adapters
from tenantry.runtime.model.pages import PageBytes
from tenantry.runtime.model.proposers import make_proposer
from tenantry.runtime.model.tiers import LowerTiers
from tenantry.runtime.model.weights import Progress, load_weights
from tenantry.runtime.plan import NOTHING_COPIED, Row, RowResult, StepPlan, StepResult
from tenantry.runtime.speculative.options import parse

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
KV_DTYPES = ("int8", "bfloat16", "native")


class ModelRunner:
    """Loading is all of the constructor: it raises ModelError, or the runner is ready. progress is told of it."""

    def __init__(self, config: EngineConfig, progress: Progress | None = None) -> None:
        dtype = DTYPES.get(config.dtype)
        if dtype is None or config.kv_dtype not in KV_DTYPES:
            field, known = ("dtype", DTYPES) if dtype is None else ("kv_dtype", KV_DTYPES)
            raise ModelUnsupported(field, f"{getattr(config, field)!r} is not one of {', '.join(known)}")
        self.model_config = ModelConfig.from_directory(config.model_dir)
        if config.schedule.max_context > self.model_config.max_context:
            raise ModelUnsupported("max_context", f"the model has only {self.model_config.max_context} positions")
        try:
            ops = select_ops(config.device, config.threads)
        except ValueError as error:
            raise ModelUnsupported("device", str(error)) from None
        _share_cores(config.threads)
        activation = torch.float32 if ops.device == "cpu" else dtype
        shape = self.model_config
        if progress:
            progress("digest", 0, 1)
        self.model_digest = digest_model(config.model_dir)
        weights = load_weights(config.model_dir, shape, dtype, ops, progress, config.weights)
        self.weight_bytes = weights.nbytes
        pages_dtype = {"int8": torch.int8, "bfloat16": torch.bfloat16, "native": activation}[config.kv_dtype]
        layout = PageLayout(
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            page_size=config.cache.page_size,
            group=config.kv_group,
            dtype=pages_dtype,
        )
        self.pool = make_pool(config, layout, shape.layers, ops.device)
        self.pages = PageBytes(self.pool, self.model_digest)
        copies = CudaCopies() if ops.device == "cuda" else None
        table = LoraTable(shape.layers, lora_sites(shape), dtype, ops.device, copies=copies)
        small = config.adapter_dtype == "int8"
        self.adapters = Adapters(LocalStore(config.adapter_dir), table, self.model_digest, self.pool, small)
        positions = config.schedule.max_context
        self.decoder = Decoder(shape, weights, ops, self.pool.layers, table, positions, activation)
        asked = parse(config.speculate)
        verify = config.speculate_verify
        self._proposer = make_proposer(asked, self.decoder, self.adapters, layout, dtype, positions, progress, verify)
        if self._proposer is not None:
            self.decoder.taps = self._proposer.taps
        warm_up(ops, dtype, pages_dtype, config.weights, _kernels(progress))
        self.tiers: LowerTiers | None = None
        if config.host_cache_bytes:
            drafts = self._proposer.pool if self._proposer is not None else None
            self.tiers = LowerTiers(config, [self.pool] if drafts is None else [self.pool, drafts], self.model_digest)
        self._ops = ops
        self._judge = Judge(ops, verify)
        self._forward: Forward = Eager(self.decoder, self.adapters, config.cache.page_size)
        if ops.device == "cuda":
            limits = config.schedule
            self._forward = Graphed(self._forward, limits.max_running, limits.max_context, CudaCapture())

    @property
    def block_bytes(self) -> int:
        """Bytes that one page id stands for."""
        return self.pool.block_bytes

    @property
    def vocab_size(self) -> int:
        return self.model_config.vocab

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return self.model_config.end_tokens

    def run(self, plan: StepPlan) -> StepResult:
        """Save pages, evict, move pages, restore some, write those that arrive, start loads, compute, read pages that
        depart, take in finished loads. Raises AdapterNotResident or ValueError for a plan that breaks the contract; a
        row whose numbers overflow is only marked, and harms no other."""
        if self.tiers is not None:
            self.tiers.save(plan.copies)
        for digest in plan.evict:
            self.adapters.evict(digest)
        self.pool.move(plan.moves)
        if self._proposer is not None and self._proposer.pool is not None:
            self._proposer.pool.move(plan.moves)
        if self.tiers is not None:
            self.tiers.restore(plan.copies)
        arrived = self.pages.arrive(plan)
        for load in plan.load:
            self.adapters.start(load)
        began = perf_counter()
        rows, taps = self._compute(plan.rows) if plan.rows else ((), None)
        computed = perf_counter()
        if self._proposer is not None and rows:
            proposals = self._proposer.follow(plan.rows, rows, taps)
            self._judge.remember(plan.rows, proposals)
            rows = tuple(
                row if proposal is None else msgspec.structs.replace(row, proposal=proposal.tree)
                for row, proposal in zip(rows, proposals, strict=True)
            )
        guessed = perf_counter()
        departed = self.pages.depart(plan)
        ended = self.adapters.settle()  # last: a run that raises must not keep to itself which loads ended
        copied = NOTHING_COPIED if self.tiers is None else self.tiers.settle()
        times = computed - began, guessed - computed
        return StepResult(rows, ended.loaded, ended.failed, *times, ended.held, copied, arrived, departed)

    def footprint(self, digest: bytes) -> Footprint:
        """What an adapter occupies when resident. Raises AdapterError or ValueError."""
        return self.adapters.footprint(digest)

    def close(self) -> None:
        """Waits for the load and the transfers under way."""
        self.adapters.close()
        if self.tiers is not None:
            self.tiers.close()

    def forward(self, rows: Sequence[Row]) -> Output:
        """The numbers behind a step, for comparison with other implementations: run() draws from these."""
        return self._forward(rows)

    def _compute(self, rows: Sequence[Row]) -> tuple[tuple[RowResult, ...], Tensor]:
        """Results, with the KV of what they say in its place, and the hidden states that the proposer wants."""
        output = self.forward(rows)
        asked = self._judge.ask(rows, output)
        self._forward.ahead(rows)  # a device is busy now, and the host is not
        results = self._judge.judge(asked)
        compact(self.pool, self._ops, rows, results)
        return tuple(results), output.taps


def _share_cores(threads: int) -> None:
    """torch gets threads only where its own matrix products run. Elsewhere the kernels' pool does the work, and
    torch's, which spins while it waits, costs more than it brings (3.3 ms instead of 0.05 for one activation)."""
    if not cpu_capability().amx_bf16:
        torch.set_num_threads(1)
    elif threads:
        torch.set_num_threads(threads)


def _kernels(progress: Progress | None) -> Callable[[str, int, int], None] | None:
    """Tells each kernel by name: the first start on a machine compiles them, which takes longer than all else."""
    if progress is None:
        return None
    return lambda name, done, total: progress(f"kernels ({name})" if name else "kernels", done, total)
