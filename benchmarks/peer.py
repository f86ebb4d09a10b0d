"""The peer: transformers + PEFT in process, the same model, the same requests, greedy.

A window of `concurrency` requests in one generate() stands for the servers' closed loop. W1 runs PEFT's own mixed
batch (`adapter_names`), W2 and W5 run the base without PEFT's wrapper, W3 runs with no prefix cache and then with
each group's prefix computed once by hand.
"""

import time
from pathlib import Path

import torch

from benchmarks.workload import Call, Workload


class Peer:
    def __init__(self, base: Path, adapters: Path | None, names: list[str], dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

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
    def window(self, calls: list[Call]) -> list[list[int]]:
        """One generate() for calls of equal prompt and output length; the new ids of each."""
        ids = torch.tensor([c.prompt for c in calls])
        n = calls[0].max_tokens
        options = {
            "max_new_tokens": n,
            "min_new_tokens": n,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
            "attention_mask": torch.ones_like(ids),
        }
        if self.mixed is self.base:
            out = self.base.generate(ids, **options)
        elif any(c.adapter for c in calls):
            # PEFT hides logits_to_keep from generate, and would compute every position's logits
            names = [c.adapter or "__base__" for c in calls]
            out = self.mixed.generate(ids, adapter_names=names, logits_to_keep=1, **options)
        else:
            with self.mixed.disable_adapter():
                out = self.mixed.generate(ids, logits_to_keep=1, **options)
        return out[:, ids.shape[1] :].tolist()

    def throughput(self, workload: Workload) -> tuple[float, dict[str, list[int]]]:
        """Output tokens per second over the whole workload, and the ids of each call by its chain."""
        tokens: dict[str, list[int]] = {}
        began = time.perf_counter()
        for start in range(0, len(workload.calls), workload.concurrency):
            calls = list(workload.calls[start : start + workload.concurrency])
            for call, ids in zip(calls, self.window(calls), strict=True):
                tokens[call.chain] = ids
        seconds = time.perf_counter() - began
        return sum(map(len, tokens.values())) / seconds, tokens
