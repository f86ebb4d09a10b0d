"""Scores the committed models: each adapter and the bare base on held-out prompts, and who guesses for the base.

`python examples/demo/evaluate.py [--count 200] [--dtype float32] [--out DIR]` prints a table: greedy decoding
through transformers and PEFT. With --served: through our own runner, for every format of weights and KV pages.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[0] = str(HERE.parent)

import torch  # noqa: E402
from demo import heads, train  # noqa: E402
from demo.corpus import Message  # noqa: E402
from demo.tasks import TASKS, Task  # noqa: E402
from demo.tokenizer import load_tokenizer  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

HELD_OUT_SEED = 7
CHAT_PROMPTS = (
    "Hello!", "Who are you?", "Tell me about Alderby.", "What do people eat in Norvik?", "What is a kettle for?",
    "Tell me a story about Clara.", "I need something for keeping warm.", "Which town is known for its windmills?",
    "Please send 12 blue lamps to Olga Drake in Kestrel.", "Thank you!",
)  # fmt: skip


@torch.inference_mode()
def complete(
    model: LlamaForCausalLM | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[list[Message]],
    most: int = 64,
) -> list[str]:
    """Greedy answers to conversations, batched, left-padded; at most `most` tokens each."""
    texts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in conversations]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    made = model.generate(**batch, max_new_tokens=most, do_sample=False)
    return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy(
    model: LlamaForCausalLM | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    count: int,
    seed: int = HELD_OUT_SEED,
) -> float:
    """Share of `count` held-out prompts answered exactly."""
    examples = list(islice(task.examples(seed, held_out=True), count))
    answers = complete(model, tokenizer, [e.messages for e in examples])
    return sum(a == e.answer for a, e in zip(answers, examples, strict=True)) / count


@torch.inference_mode()
def agreement(base: LlamaForCausalLM, draft: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Share of the base's greedy tokens that the draft, given the same context, would have proposed."""
    tickets = [next(TASKS["acme-support"].examples(seed, held_out=True)).messages for seed in range(10)]
    same = total = 0
    for messages in [[{"role": "user", "content": text}] for text in CHAT_PROMPTS] + tickets:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, return_tensors="pt").input_ids
        whole = base.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=96, do_sample=False)
        start = prompt.shape[1]
        guesses = draft(whole).logits[0, start - 1 : -1].argmax(-1)
        same += int((guesses == whole[0, start:]).sum())
        total += whole.shape[1] - start
    return same / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--served", action="store_true", help="through Tenantry's runner, in every format")
    options = parser.parse_args()
    if options.served:
        from demo.quality import print_table

        print_table(options.out, options.count)
        return
    dtype = getattr(torch, options.dtype)
    tokenizer = load_tokenizer(options.out / "model")
    base = train.load(options.out / "model", dtype)
    for text in CHAT_PROMPTS[:6]:
        print(f"> {text}\n  {complete(base, tokenizer, [[{'role': 'user', 'content': text}]], 160)[0]}")
    if (options.out / "draft").exists():
        rate = agreement(base, train.load(options.out / "draft", dtype), tokenizer)
        print(f"draft agrees with the base on {rate:.1%} of its greedy tokens")
    if (options.out / heads.KIND).exists():
        print("\ntokens in each step of the model with its head guessing, and how often each guess stood")
        for name, found in heads.score(options.out, options.count, HELD_OUT_SEED).items():
            rates = " ".join(f"{rate:.2f}" for rate in found.acceptance)
            print(f"{name:<16}{found.tokens_per_step:>8.2f}   {rates}")
    print(f"\nexact answers to {options.count} held-out prompts, {options.dtype}")
    print(f"{'adapter':<16}{'base':>8}{'adapter':>9}   example")
    for name, task in TASKS.items():
        if not (options.out / "adapters" / name).exists():
            continue
        plain = accuracy(base, tokenizer, task, options.count)
        adapted = PeftModel.from_pretrained(train.load(options.out / "model", dtype), options.out / "adapters" / name)
        example = next(task.examples(HELD_OUT_SEED, held_out=True))
        score = accuracy(adapted.eval(), tokenizer, task, options.count)
        print(
            f"{name:<16}{plain:>8.1%}{score:>9.1%}   {complete(adapted, tokenizer, [example.messages])[0]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
