"""The peer that always runs: transformers + PEFT in process, the same model, the same requests, greedy.

A window of `concurrency` requests in one generate() stands for the servers' closed loop. Calls with adapters run as
PEFT's own mixed batch (`adapter_names`); a Peer made without adapters runs the base without PEFT's wrapper.
"""

import os
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from benchmarks.workload import Call, Workload


class Peer:
    def __init__(self, base: Path, adapters: Path | None, names: list[str], dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(os.cpu_count() or 1)  # whatever our own runner told torch in this process
        self.base = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="sdpa").eval()
        self.mixed = self.base
        if adapters is not None and names:
            from peft import PeftModel

            first, *rest = names
            self.mixed = PeftModel.from_pretrained(
                self.base, adapters / first, adapter_name=first, autocast_adapter_dtype=False
            )
            for name in rest:
                self.mixed.load_adapter(adapters / name, adapter_name=name, autocast_adapter_dtype=False)
            self.mixed.eval()

    @torch.inference_mode()
    def window(self, calls: list[Call], steps: int) -> list[float]:
        """One generate() of `steps` tokens for calls of equal prompt length: seconds until each token was there."""
        from transformers import StoppingCriteria, StoppingCriteriaList

        times: list[float] = []

        class Clock(StoppingCriteria):
            def __call__(self, input_ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
                times.append(time.perf_counter() - began)
                return torch.zeros(input_ids.shape[0], dtype=torch.bool)

        ids = torch.tensor([c.prompt for c in calls])
        options = {
            "max_new_tokens": steps,
            "min_new_tokens": steps,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
            "attention_mask": torch.ones_like(ids),
            "stopping_criteria": StoppingCriteriaList([Clock()]),
        }
        began = time.perf_counter()
        if self.mixed is self.base:
            self.base.generate(ids, **options)
        elif any(c.adapter for c in calls):
            # PEFT hides logits_to_keep from generate, and would compute every position's logits
            names = [c.adapter or "__base__" for c in calls]
            self.mixed.generate(ids, adapter_names=names, logits_to_keep=1, **options)
        else:
            with self.mixed.disable_adapter():
                self.mixed.generate(ids, logits_to_keep=1, **options)
        return times

    def throughput(self, workload: Workload, steps: int = 0) -> float:
        """Output tokens per second over the whole workload. steps: compute only that many tokens of each window
        and take the rest at the median of its steps, all of which do the same work; 0 computes every token."""
        seconds, tokens = 0.0, 0
        for start in range(0, len(workload.calls), workload.concurrency):
            calls = list(workload.calls[start : start + workload.concurrency])
            wanted = calls[0].max_tokens
            seconds += whole_window(self.window(calls, min(steps or wanted, wanted)), wanted)
            tokens += wanted * len(calls)
        return tokens / seconds


def whole_window(times: list[float], wanted: int) -> float:
    """Seconds of a window of `wanted` tokens, of which the first len(times) came at these times."""
    if len(times) >= wanted:
        return times[wanted - 1]
    if len(times) < 3:
        raise ValueError("at least three tokens must be timed")
    step = median(b - a for a, b in pairwise(times))
    return times[-1] + (wanted - len(times)) * step
