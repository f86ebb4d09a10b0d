"""A whole decode step through the real runner: the 8B shape, 64 rows of 64 adapters at 2k context.

Weights, adapters and pages are noise, written as a checkpoint and as blobs the runner loads like any other. The
floor is every byte of weights, adapters and pages read once, or every product done once, whichever takes longer.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.gpu.device import DEVICE, REAL, SHAPE, Ceilings, Shape
from benchmarks.report import Report
from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import SITES, ModuleEntry
from tenantry.adapters.store import LocalStore
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.driver import Driver
from tenantry.runtime.model.runner import ModelRunner

ROWS, CONTEXT, STEPS = (64, 2048, 40) if REAL else (3, 32, 2)
ADAPTERS, RANK = ROWS, 16
PAGE = 16


def measure(report: Report, ceilings: Ceilings, _peers: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        checkpoint(SHAPE, model)
        for kind in ("int8", "bfloat16") if REAL else ("int8",):
            for adapters in (ADAPTERS, 0):
                one(model, Path(scratch), kind, adapters, report, ceilings)


def one(model: Path, scratch: Path, kind: str, adapters: int, report: Report, ceilings: Ceilings) -> None:
    each = CONTEXT // PAGE + 8
    config = EngineConfig(
        model_dir=model,
        adapter_dir=scratch / "adapters",
        socket="",
        journal_dir=scratch,
        dtype="bfloat16" if REAL else "float32",
        kv_dtype=kind,
        device=DEVICE,
        adapter_bytes=16 << 30 if REAL else 1 << 24,
        cache=CacheConfig(page_size=PAGE, pages=ROWS * each),
        schedule=ScheduleConfig(max_running=ROWS, max_context=CONTEXT + 8 * PAGE),
    )
    digests = blobs(SHAPE, digest_model(model), LocalStore(config.adapter_dir), adapters)
    runner = ModelRunner(config)
    try:
        driver = Driver(runner)
        if digests:
            driver.load(*digests, patience=600)
        fill(runner)
        tracks = []
        for row in range(ROWS):
            adapter = digests[row % len(digests)] if digests else None
            track = driver.track(
                [3 + row] * (CONTEXT + 1), adapter, pages=range(row * each, row * each + CONTEXT // PAGE)
            )
            track.pages = list(range(row * each, (row + 1) * each))
            tracks.append(track)
        taken = []
        for _ in range(STEPS):
            began = time.perf_counter()
            driver.step(tracks)
            taken.append(time.perf_counter() - began)
    finally:
        runner.close()
    seconds = sorted(taken[STEPS // 4 :])[(STEPS - STEPS // 4) // 2]
    what = f"a decode step, {ROWS} rows at {CONTEXT}, {kind} pages, {adapters} adapters"
    floor = floor_seconds(SHAPE, kind, adapters, ceilings)
    report.add(what, seconds * 1e3, "ms", floor_ms=floor * 1e3, tok_s=ROWS / seconds)
    if REAL and kind == "int8" and adapters:
        report.judge(f"{what} / roofline", seconds / floor, "<= 1.35")


def floor_seconds(shape: Shape, kind: str, adapters: int, ceilings: Ceilings) -> float:
    """bf16 weights and adapters; int8 pages have a half-precision scale per token and head."""
    parameters = shape.hidden * shape.vocab + shape.layers * sum(w * sum(o) for w, o in shape.sites.values())
    rank = shape.layers * sum(w * len(o) + sum(o) for w, o in shape.sites.values())
    values = shape.head_dim + 2 if kind == "int8" else 2 * shape.head_dim
    pages = ROWS * CONTEXT * shape.layers * shape.kv_heads * 2 * values
    read = 2 * parameters + 2 * adapters * RANK * rank + pages
    return max(read / ceilings.read, 2 * ROWS * parameters / ceilings.flops)


def checkpoint(shape: Shape, out: Path) -> None:
    """A Llama with random bf16 weights, a file per layer."""
    out.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    (out / "config.json").write_text(json.dumps(config))
    index: dict[str, str] = {}

    def save(file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, out / file)
        index.update(dict.fromkeys(tensors, file))

    def noise(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, device=DEVICE) * columns**-0.5).bfloat16().cpu()

    one = torch.ones(shape.hidden, dtype=torch.bfloat16)
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    linear = {
        "self_attn.q_proj": (q, shape.hidden),
        "self_attn.k_proj": (kv, shape.hidden),
        "self_attn.v_proj": (kv, shape.hidden),
        "self_attn.o_proj": (shape.hidden, q),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    for layer in range(shape.layers):
        tensors = {f"model.layers.{layer}.{name}.weight": noise(*size) for name, size in linear.items()}
        tensors |= {
            f"model.layers.{layer}.{name}.weight": one.clone()
            for name in ("input_layernorm", "post_attention_layernorm")
        }
        save(f"layer-{layer:02d}.safetensors", tensors)
    outer = {"model.embed_tokens.weight": noise(shape.vocab, shape.hidden), "model.norm.weight": one.clone()}
    save("outer.safetensors", outer | {"lm_head.weight": noise(shape.vocab, shape.hidden)})
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def blobs(shape: Shape, base: bytes, store: LocalStore, count: int) -> list[bytes]:
    """Digests of `count` adapters of rank 16 on all seven projections, stored as the registry would."""
    sizes = {
        module: (shape.sites[site][0], out)
        for site, modules in SITES.items()
        for module, out in zip(modules, shape.sites[site][1], strict=True)
    }
    entries = [
        ModuleEntry(layer=layer, module=module, rank=RANK, scale=1.0, in_features=width, out_features=out)
        for layer in range(shape.layers)
        for module, (width, out) in sizes.items()
    ]

    def bits(rows: int, columns: int, size: float, rng: np.random.Generator) -> np.ndarray:
        values = rng.standard_normal((rows, columns), dtype=np.float32) * size
        return (values.view(np.uint32) >> 16).astype(np.uint16)

    digests = []
    for adapter in range(count):
        rng = np.random.default_rng(adapter)

        def fetch(e: ModuleEntry, rng: np.random.Generator = rng) -> tuple[np.ndarray, np.ndarray]:
            return bits(e.rank, e.in_features, e.in_features**-0.5, rng), bits(e.out_features, e.rank, 0.02, rng)

        digests.append(store.put(base, "BF16", entries, fetch).digest)
    return digests


def fill(runner: ModelRunner) -> None:
    """Pages of noise: what they hold does not change what a step costs."""
    for layer in runner.pool.layers:
        for values in (layer.k, layer.v):
            if values.dtype == torch.int8:
                values.random_(-127, 128)
            else:
                values.normal_()
        for scales in (layer.k_scale, layer.v_scale):
            if scales is not None:
                scales.fill_(0.01)
