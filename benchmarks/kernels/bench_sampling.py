"""M5 on CPU: sampling per row of a batch, beside the full sort of the reference and torch's sort of all rows."""

import torch
from torch import Tensor

from benchmarks.kernels.shapes import machine, report
from tenantry.kernels.ops import select_ops
from tenantry.kernels.sampling import reference
from tenantry.kernels.sampling.spec import DrawSpec
from tenantry.kernels.timing import median_us

CASES = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "min_p 0.05": {"min_p": 0.05},
    "top_k 50": {"top_k": 50},
    "top_p 0.9": {"top_p": 0.9},
    "top_k 50, top_p 0.9, 5 logprobs": {"top_k": 50, "top_p": 0.9, "logprobs": 5},
    "penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "history": tuple(range(500))},
}


def torch_sort(logits: Tensor, spec: DrawSpec) -> Tensor:
    """What samplers without a threshold search do, for a batch that asks for one thing."""
    if spec.temperature == 0:
        return logits.argmax(-1)
    ranked, ids = (logits / spec.temperature).sort(-1, descending=True)
    p = ranked.softmax(-1)
    drop = p.cumsum(-1) - p > spec.top_p
    drop |= p < spec.min_p * p[:, :1]
    if spec.top_k:
        drop[:, spec.top_k :] = True
    return ids.gather(1, p.masked_fill(drop, 0).multinomial(1))


def main() -> None:
    ops, bandwidth = select_ops("cpu"), machine()
    torch.set_num_threads(1)
    for rows, vocabulary in ((1, 32000), (16, 32000), (16, 151936), (64, 151936)):
        logits = torch.randn(rows, vocabulary) * 5
        for name, fields in CASES.items():
            specs = [DrawSpec(seed=i, **fields) for i in range(rows)]
            us = median_us(lambda specs=specs, logits=logits: ops.sample(logits, specs)) / rows
            sort = median_us(lambda spec=specs[0], logits=logits: torch_sort(logits, spec)) / rows
            plain = median_us(lambda specs=specs, logits=logits: reference.sample(logits, specs), least=3) / rows
            title = f"{rows} x {vocabulary} {name}"
            report(title, us, logits[0].nbytes, bandwidth, "torch.sort", sort)
            print(f"{'':<34} full sort of the reference {plain:>10.0f} us  {plain / us:>6.2f}x", flush=True)


if __name__ == "__main__":
    main()
