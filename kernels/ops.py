"""The door of this library: one frozen table of operations per device, chosen explicitly.

Tensors in, tensors out; no environment, no configuration objects, no probing at import.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tenantry.kernels.attention import reference as reference_attention
from tenantry.kernels.attention import rotary
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.capability import cpu_capability
from tenantry.kernels.chain.contract import PrepareChain, no_chain
from tenantry.kernels.elementwise import reference as reference_elementwise
from tenantry.kernels.lora import reference as reference_lora
from tenantry.kernels.lora.layout import SiteShape, SliceWeights
from tenantry.kernels.lora.project import Apply, Project, in_turn
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.quant.linear import PrepareLinear, prepare_linear, prepare_reference, prepare_triton
from tenantry.kernels.quant.schemes import Scheme
from tenantry.kernels.sampling import reference as reference_sampling
from tenantry.kernels.sampling.drawn import Draw, at_once
from tenantry.kernels.sampling.spec import DrawSpec, SampleResult


@dataclass(frozen=True, slots=True)
class Ops:
    """Operations of one device. On CPU activations are fp32 whatever the weights' dtype.

    write_kv(k, v, pages, slots), move_kv(pages, sources, targets): see attention/reference.py, as for
    attention(q, pages, plan, scale).
    rotate_and_write(qkv, cos, sin, pages, slots, norms): see attention/rotary.py.
    apply_lora(x, y, layer, site, plan, table): see lora/reference.py; project(linear, x, ...): see lora/project.py.
    prepare_linear(weight, bias, scheme): see quant/linear.py; called once per layer at load.
    add_norm(hidden, delta, weight, eps), silu_mul(gate_up): see elementwise/reference.py.
    sample(logits, specs): see sampling/reference.py; draw(logits, specs, beside) asks for the same and does not wait,
    and brings another bool tensor along: see sampling/drawn.py.
    prepare_chain(embedding, layers, ...): see chain/contract.py.
    """

    name: str
    device: str
    write_kv: Callable[[Tensor, Tensor, LayerPages, Tensor], None]
    move_kv: Callable[[LayerPages, Tensor, Tensor], None]
    rotate_and_write: Callable[[Tensor, Tensor, Tensor, LayerPages, Tensor, HeadNorms | None], Tensor]
    attention: Callable[[Tensor, LayerPages, AttentionPlan, float], Tensor]
    apply_lora: Apply
    project: Project
    prepare_linear: PrepareLinear
    add_norm: Callable[[Tensor, Tensor | None, Tensor, float], Tensor]
    silu_mul: Callable[[Tensor], Tensor]
    sample: Callable[[Tensor, Sequence[DrawSpec]], SampleResult]
    draw: Draw
    prepare_chain: PrepareChain = no_chain


REFERENCE = Ops(
    name="reference",
    device="cpu",
    write_kv=reference_attention.write_kv,
    move_kv=reference_attention.move_kv,
    rotate_and_write=rotary.rotate_and_write,
    attention=reference_attention.attention,
    apply_lora=reference_lora.apply_lora,
    project=in_turn(reference_lora.apply_lora),
    prepare_linear=prepare_reference,
    add_norm=reference_elementwise.add_norm,
    silu_mul=reference_elementwise.silu_mul,
    sample=reference_sampling.sample,
    draw=at_once(reference_sampling.sample),
)


def select_ops(device: str, threads: int = 0) -> Ops:
    """The operations of a device, and the threads they may use (0: every core).

    device: "cuda" (Triton), "cpu" (the reference where numba is not installed: Ops.name says so) or "reference".
    Raises ValueError for any other.
    """
    if device == "reference" or (device == "cpu" and not cpu_capability().numba):
        return REFERENCE
    if device == "cpu":
        from tenantry.kernels import pool
        from tenantry.kernels.attention import cpu as attention
        from tenantry.kernels.attention import cpu_move, cpu_write
        from tenantry.kernels.chain import cpu as chain
        from tenantry.kernels.elementwise import cpu as elementwise
        from tenantry.kernels.lora import cpu as lora
        from tenantry.kernels.sampling import cpu as sampling

        pool.set_threads(threads)
        return Ops(
            name="cpu",
            device="cpu",
            write_kv=cpu_write.write_kv,
            move_kv=cpu_move.move_kv,
            rotate_and_write=cpu_write.rotate_and_write,
            attention=attention.attention,
            apply_lora=lora.apply_lora,
            project=in_turn(lora.apply_lora),
            prepare_linear=prepare_linear,
            add_norm=elementwise.add_norm,
            silu_mul=elementwise.silu_mul,
            sample=sampling.sample,
            draw=at_once(sampling.sample),
            prepare_chain=chain.prepare_chain,
        )
    if device == "cuda":
        from tenantry.kernels.attention import gpu as attention_gpu
        from tenantry.kernels.attention import gpu_move, gpu_write
        from tenantry.kernels.elementwise import gpu as elementwise_gpu
        from tenantry.kernels.lora import gpu as lora_gpu
        from tenantry.kernels.sampling import gpu as sampling_gpu

        return Ops(
            name="triton",
            device="cuda",
            write_kv=gpu_write.write_kv,
            move_kv=gpu_move.move_kv,
            rotate_and_write=gpu_write.rotate_and_write,
            attention=attention_gpu.attention,
            apply_lora=lora_gpu.apply_lora,
            project=lora_gpu.project,
            prepare_linear=prepare_triton,
            add_norm=elementwise_gpu.add_norm,
            silu_mul=elementwise_gpu.silu_mul,
            sample=sampling_gpu.sample,
            draw=sampling_gpu.draw,
        )
    raise ValueError(f"device: no kernels for {device!r}")


Told = Callable[[str, int, int], None]  # what is compiled now, how many are done, of how many


def warm_up(
    ops: Ops, weights: torch.dtype, kv: torch.dtype, scheme: Scheme = "native", told: Told | None = None
) -> None:
    """Run every operation once on the smallest shapes, so that nothing is compiled (the first time ever, half a
    minute or, on a busy machine, several) or loaded from the compiler's cache (afterwards) while requests wait.
    weights, kv: dtypes to be used; scheme: of the weights. told: before each operation, and when all are done."""
    steps = _warming(ops, weights, kv, scheme)
    for done, (name, run) in enumerate(steps):
        if told is not None:
            told(name, done, len(steps))
        run()
    if told is not None:
        told("", len(steps), len(steps))


def _warming(
    ops: Ops, weights: torch.dtype, kv: torch.dtype, scheme: Scheme
) -> list[tuple[str, Callable[[], object]]]:
    """Each operation by its name, on its smallest shapes; each stands for itself, in any order."""
    device, kind = ops.device, torch.float32 if ops.device == "cpu" else weights

    def zeros(*shape: int, dtype: torch.dtype = kind) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    pages = PageLayout(1, 32, 4, 0, kv).allocate(1, device)
    slots, first = torch.arange(2, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    moved = torch.ones((1, 1), dtype=torch.int64, device=device)
    angle = zeros(1, 32, dtype=torch.float32)

    def project() -> None:
        table = LoraTable(1, {"site": SiteShape(32, (64,))}, weights, device)
        module = SliceWeights(zeros(16, 32), zeros(64, 16), 16, 1.0)
        table.set_slot(0, table.prepare({(0, "site", 0): module}))
        linear = ops.prepare_linear(zeros(64, 32, dtype=weights), None, scheme)
        ops.project(linear, zeros(1, 32), 0, "site", table.plan([0], [1]), table)

    return [
        ("write_kv", lambda: ops.write_kv(zeros(2, 1, 32), zeros(2, 1, 32), pages, slots)),
        ("move_kv", lambda: ops.move_kv(pages, moved, zeros(1, 1, dtype=torch.int64))),
        (
            "attention",
            lambda: ops.attention(zeros(2, 1, 32), pages, AttentionPlan.build([2], [2], [range(1)], 4, device), 1.0),
        ),
        ("rotate_and_write", lambda: ops.rotate_and_write(zeros(1, 96), angle, angle, pages, first, None)),
        ("add_norm", lambda: ops.add_norm(zeros(1, 128), None, zeros(128, dtype=torch.float32), 1e-6)),
        ("silu_mul", lambda: ops.silu_mul(zeros(1, 128))),
        ("linear and LoRA", project),
        (
            "sample",
            lambda: ops.sample(zeros(2, 64, dtype=torch.float32), [DrawSpec(), DrawSpec(top_k=2, logprobs=1)]),
        ),
    ]
