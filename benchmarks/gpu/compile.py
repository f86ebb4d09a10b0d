"""`python -m benchmarks.gpu.compile`: every Triton kernel compiled to machine code for a GPU that is not there.

The operations run as they would on the device, over CPU memory and with the 8B shape's sizes, but each launch only
compiles, with the very arguments and options of the launch. Finds what the interpreter forgives (types, shapes,
shared memory, spills), needs no GPU, and must run without Triton's interpreter. Results are garbage and not read.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from benchmarks.gpu.device import EIGHT_B
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.lora import gpu as lora
from tenantry.kernels.lora.layout import GPU_PACKING, SiteShape, SliceWeights
from tenantry.kernels.lora.plan import DECODE_TILE, PREFILL_TILE, LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.ops import select_ops
from tenantry.kernels.sampling.spec import DrawSpec

SHARED = 227 << 10  # bytes of shared memory that a program may have on compute capability 9.0
KIND = torch.bfloat16
OPS = select_ops("cuda")


class Absent:
    """What Triton asks of a driver before it launches."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device

    def get_current_target(self) -> GPUTarget:
        return self.target


@dataclass(frozen=True, slots=True)
class Compiled:
    """One launch's machine code. shared: bytes per program. registers: per thread; stack: bytes spilled per thread,
    both None where no disassembler came with Triton."""

    part: str
    name: str
    warps: int
    shared: int
    registers: int | None
    stack: int | None


class Compiler:
    """Stands in for launching while it is entered; keeps each kernel that a launch would have run."""

    def __init__(self, capability: int) -> None:
        self.part = ""
        self.found: dict[int, Compiled] = {}
        self._driver: Any = Absent(capability)

    def __enter__(self) -> "Compiler":
        self._launch = JITFunction.__getitem__
        JITFunction.__getitem__ = lambda kernel, grid: partial(self._compile, kernel, grid)
        driver.set_active(self._driver)
        return self

    def __exit__(self, *_: object) -> None:
        JITFunction.__getitem__ = self._launch

    def _compile(self, kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        made = kernel.run(*args, grid=grid, warmup=True, **options)
        if id(made) not in self.found:
            registers, stack = resources(made.asm["cubin"])
            meta = made.metadata
            self.found[id(made)] = Compiled(self.part, meta.name, meta.num_warps, meta.shared, registers, stack)


def resources(cubin: bytes) -> tuple[int | None, int | None]:
    """Registers and stack bytes per thread, by the disassembler in Triton's wheel."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = dict(word.split(":", 1) for word in said.split() if word.startswith(("REG:", "STACK:")))
    return int(found["REG"]), int(found["STACK"])


def made(*shape: int, kind: torch.dtype = KIND) -> torch.Tensor:
    return torch.zeros(shape, dtype=kind)


def attention() -> None:
    """Pages of every kind; rows that decode, that verify a draft or a tree, and that prefill."""
    layouts = [(32, PageLayout(8, 128, 16, group)) for group in (0, 64, 32)]
    layouts += [
        (14, PageLayout(2, 64, 16)),
        (14, PageLayout(2, 64, 16, 32)),
        (32, PageLayout(8, 128, 16, dtype=KIND)),
    ]
    q_lens, lengths = [1, 6, 70], [9, 20, 75]
    for heads, layout in layouts:
        pages = layout.allocate(16)
        for tree in (None, [1, 3, 5, 9, 17, 33]):
            masks = None if tree is None else [0, *tree, *[0] * 70]
            tables = [range(16)] * 3
            plan = AttentionPlan.build(q_lens, lengths, tables, layout.page_size, tree=masks)
            OPS.attention(made(77, heads, layout.head_dim), pages, plan, 0.1)
        qkv = made(3, (heads + 2 * layout.kv_heads) * layout.head_dim)
        angle = made(3, layout.head_dim, kind=torch.float32)
        weights = [made(layout.head_dim, kind=torch.float32) for _ in range(2)]
        for norms in (None, HeadNorms(*weights, 1e-6)):
            OPS.rotate_and_write(qkv, angle, angle, pages, torch.arange(3), norms)
        OPS.move_kv(pages, *torch.zeros((2, 1, 6), dtype=torch.int64))
        OPS.write_kv(*made(2, 3, layout.kv_heads, layout.head_dim), pages, torch.arange(3))


def adapters() -> None:
    """All four sites, decode's tiles and prefill's, added and written."""
    sites = {name: SiteShape(*shape) for name, shape in EIGHT_B.sites.items()}
    table = LoraTable(1, sites, KIND, "cpu", GPU_PACKING)
    weights = {
        (0, name, part): SliceWeights(made(8, shape.in_features), made(out, 8), 8, 1.0)
        for name, shape in sites.items()
        for part, out in enumerate(shape.slices)
    }
    table.set_slot(0, table.prepare(weights))
    for tile in (DECODE_TILE, PREFILL_TILE):
        plan = LoraPlan.build([0], [3], table.ranks, table.epoch, tile=tile)
        for name, shape in sites.items():
            for apply in (lora.apply_lora, lora.write_lora):  # both orders of a product and its adapters
                apply(made(3, shape.in_features), made(3, shape.out_features), 0, name, plan, table)


def elementwise() -> None:
    hidden, weight = made(3, EIGHT_B.hidden), made(EIGHT_B.hidden, kind=torch.float32)
    OPS.add_norm(hidden, None, weight, 1e-5)
    OPS.add_norm(hidden, hidden.clone(), weight, 1e-5)
    OPS.silu_mul(made(3, 2 * EIGHT_B.intermediate))


def products() -> None:
    """Weight-quantised products of few rows, with as many outputs as make the fewest and the most planes."""
    for rows in (1, 33, 64):
        for scheme in ("w8a16", "w8a8", "w4a16"):
            OPS.prepare_linear(made(512, EIGHT_B.hidden), None, scheme)(made(rows, EIGHT_B.hidden))


def sampling() -> None:
    logits = made(2, EIGHT_B.vocab, kind=torch.float32)
    OPS.sample(logits, [DrawSpec(temperature=0.0)] * 2)
    OPS.sample(logits, [DrawSpec(top_k=5, top_p=0.9, repetition_penalty=1.1, history=(1, 2))] * 2)


PARTS: dict[str, Callable[[], None]] = {
    "attention": attention,
    "lora": adapters,
    "elementwise": elementwise,
    "linear": products,
    "sampling": sampling,
}


def main() -> int:
    """0, or 1 where a program wants more shared memory than the device has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="compute capability, times ten")
    parser.add_argument("--only", default=",".join(PARTS))
    a = parser.parse_args()
    torch.set_grad_enabled(False)
    with Compiler(a.capability) as compiler:
        for compiler.part in a.only.split(","):
            PARTS[compiler.part]()
    print(f"triton {triton.__version__}, compute capability {a.capability / 10}; one line per launch that differs")
    print(f"{'part':12}{'kernel':18}{'warps':>6}{'shared':>8}{'registers':>10}{'spilled':>8}")
    for c in compiler.found.values():
        print(f"{c.part:12}{c.name:18}{c.warps:6}{c.shared:8}{c.registers!s:>10}{c.stack!s:>8}")
    too_large = [c for c in compiler.found.values() if c.shared > SHARED]
    if too_large:
        print("more shared memory than there is:", *too_large, sep="\n")
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
