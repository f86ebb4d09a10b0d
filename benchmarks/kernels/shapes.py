"""The 0.5B shape that every kernel benchmark uses, and how a line of results is printed."""

import torch

from tenantry.kernels.lora.layout import SiteShape
from tenantry.kernels.timing import read_bandwidth

LAYERS = 6  # enough that no layer stays in a cache until its next turn
HEADS, KV_HEADS, HEAD_DIM = 14, 2, 64
SITES = {
    "qkv": SiteShape(896, (896, 128, 128)),
    "o": SiteShape(896, (896,)),
    "gate_up": SiteShape(896, (4864, 4864)),
    "down": SiteShape(4864, (896,)),
}


def machine() -> float:
    """Print the machine's line; returns bytes per second."""
    bandwidth = read_bandwidth()
    print(f"threads {torch.get_num_threads()}, reads {bandwidth / 1e9:.1f} GB/s, torch {torch.__version__}")
    return bandwidth


def report(name: str, us: float, nbytes: float, bandwidth: float, baseline: str, baseline_us: float) -> None:
    """One line: microseconds per layer, the floor in bytes, the ratio to a baseline run beside it."""
    floor = nbytes / bandwidth * 1e6
    print(
        f"{name:<34} {us:>10.0f} us  floor {floor:>8.0f} us ({100 * floor / us:>5.1f} %)"
        f"  {baseline} {baseline_us:>10.0f} us  {baseline_us / us:>6.2f}x",
        flush=True,
    )
