"""What was promised, by the name of the row that must reach it. A row without an entry is shown and not judged.

A peer in float32 runs only where the processor emulates bf16; it has the targets of bf16.
"""

TARGETS = {
    "0.5B bf16 W1 of the machine's limit": ">= 0.5",
    "0.5B bf16 WC of the machine's limit": ">= 0.5",
    "0.5B bf16 W1 / W2": ">= 0.45",
    "0.5B bf16 W5L / W5": ">= 0.9",
    "0.5B bf16 prefix-hit TTFT / cold": "<= 0.35",
    "0.5B bf16 W1 / PEFT bfloat16": ">= 3",
    "0.5B bf16 W1 / PEFT float32": ">= 3",
    "0.5B int8 W1 / PEFT bfloat16": ">= 4.5",
    "0.5B int8 W1 / PEFT float32": ">= 4.5",
    "0.5B bf16 W2 / transformers bfloat16": ">= 0.9",
    "0.5B bf16 W2 / transformers float32": ">= 0.9",
    "0.5B bf16 W1 / vllm": ">= 8",
    "0.5B bf16 W2 / vllm, LoRA off": ">= 1",
    "0.5B bf16 W5 / vllm, LoRA off": ">= 1",
    "0.5B int8 W5 / vllm, LoRA off": ">= 1.6",
    "0.5B bf16 W1 / llama.cpp F16": ">= 8",
    "0.5B bf16 W1 / llama.cpp BF16": ">= 8",
    "demo bf16 W1 / W2": ">= 0.45",
    "demo bf16 prefix-hit TTFT / cold": "<= 0.35",
    "demo bf16 W1 / PEFT bfloat16": ">= 1.2",
    "demo bf16 W1 / PEFT float32": ">= 1.2",
    "demo bf16 W2 / transformers bfloat16": ">= 0.9",
    "demo bf16 W2 / transformers float32": ">= 0.9",
    "W7 4 x budget, split": ">= 0.7",
    "W7 4 x budget, unified": ">= 0.7",
    "2k prompts among 16 decoders, ITL p99 / target": "<= 1",
    "quiet tenant's p95 TTFT, flooded / solo": "<= 2",
    "Jain's index over 20 equal tenants": ">= 0.98",
    "bf16 LoRA's share of a prefill of 512, rank 16": "<= 0.12",
    "int8 / bf16 KV bytes per token": "<= 0.53",
    "int8 / bf16 pages, decode speed at 2048": ">= 1",
}
