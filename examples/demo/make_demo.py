"""Makes all of this folder again: tokenizer, base, draft, adapters, the draft's own, head. 90 minutes on 2 cores.

`python examples/demo/make_demo.py [--only base|draft|adapters|head|draft-adapters] [--threads 2] [--out DIR]`

The draft model's own adapters, one for each adapter, let it guess in the adapters' formats: they take half an hour.
"""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The folder is the package `demo`: its modules must not shadow installed packages of the same name.
sys.path[0] = str(HERE.parent)

import torch  # noqa: E402
from demo import train  # noqa: E402
from demo.tokenizer import load_tokenizer, train_tokenizer  # noqa: E402

SEED = 20260101
PARTS = ("base", "draft", "adapters", "draft-adapters", "head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only (may be given again)")
    parser.add_argument("--adapter", action="append", help="with --only [draft-]adapters: this adapter only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE, help="where model/, draft/, adapters/ and eagle/ go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts, started = options.only or PARTS, time.monotonic()
    if "base" in parts:
        train_tokenizer(options.out / "model", SEED)
        train.save(train.pretrain(train.BASE, load_tokenizer(options.out / "model"), SEED), options.out / "model")
    tokenizer = load_tokenizer(options.out / "model")
    if "draft" in parts:
        train.save(train.pretrain(train.DRAFT, tokenizer, SEED), options.out / "draft")
    if "adapters" in parts:
        from demo import lora

        lora.train_all(options.out, tokenizer, SEED, options.adapter)
    if "draft-adapters" in parts:
        from demo import draft_lora

        draft_lora.train_all(options.out, tokenizer, SEED, options.adapter)
    if "head" in parts:
        from demo import heads

        heads.train_head(options.out, SEED, options.threads)
    print(f"made {', '.join(parts)} in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
