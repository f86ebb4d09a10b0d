"""Drives a workload at an OpenAI-compatible /v1/completions server, closed loop, and measures what a client sees.

Every request must return exactly its tokens; anything else is counted as bad and named. Ours and the peers' servers
get the same requests; only how an adapter is named differs.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import aiohttp

from benchmarks.workload import Call, Workload


@dataclass(slots=True)
class Answer:
    """times: arrival of each chunk that carried tokens, in seconds since `began`."""

    call: Call
    began: float
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    cached: int = 0
    counted: int = 0
    error: str | None = None

    @property
    def good(self) -> bool:
        return self.error is None and self.counted == self.call.max_tokens and bool(self.times)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of one workload showed. Times in milliseconds."""

    workload: str
    seconds: float
    answers: tuple[Answer, ...]

    @property
    def output_tokens_per_second(self) -> float:
        return sum(a.counted for a in self.answers if a.good) / self.seconds

    @property
    def bad(self) -> list[str]:
        return [a.error or f"{a.counted} of {a.call.max_tokens} tokens" for a in self.answers if not a.good]

    @property
    def cached(self) -> int:
        return sum(a.cached for a in self.answers)

    def ttft(self, share: float, keep: Callable[[Answer], bool] = lambda _a: True) -> float:
        return percentile([a.times[0] * 1e3 for a in self.answers if a.good and keep(a)], share)

    def itl(self, share: float) -> float:
        gaps = [(b - a) * 1e3 for x in self.answers if x.good for a, b in zip(x.times, x.times[1:], strict=False)]
        return percentile(gaps, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between ranks; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    k = (len(ordered) - 1) * share
    low = int(k)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (k - low)


async def ask(
    http: aiohttp.ClientSession, url: str, key: str, base: str, call: Call, prompt: list[int], by: str
) -> Answer:
    began = time.perf_counter()
    answer = Answer(call, began)
    body = {
        "model": call.adapter or base if by == "model" else base,
        "prompt": prompt,
        "max_tokens": call.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if by == "model":
        body["return_token_ids"] = True
    else:  # llama.cpp: an empty list would mean every adapter at once
        body["lora"] = [{"id": int(call.adapter or 0), "scale": 1.0 if call.adapter else 0.0}]
    try:
        async with http.post(f"{url}/v1/completions", headers={"Authorization": f"Bearer {key}"}, json=body) as resp:
            if resp.status != 200:
                answer.error = f"HTTP {resp.status}: {(await resp.text())[:300]}"
                return answer
            async for line in resp.content:
                now = time.perf_counter() - began
                data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                if data in (b"", b"[DONE]"):
                    continue
                message = json.loads(data)
                if "error" in message:
                    answer.error = str(message["error"])[:300]
                    return answer
                for choice in message.get("choices") or []:
                    ids = choice.get("token_ids") or []
                    if ids or choice.get("text"):
                        answer.times.append(now)
                        answer.tokens += ids
                if usage := message.get("usage"):
                    answer.counted = usage["completion_tokens"]
                    answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    except (aiohttp.ClientError, TimeoutError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    return answer


async def drive(
    url: str, key: str, base: str, workload: Workload, limit_s: float = 1800, by: Literal["model", "lora"] = "model"
) -> Outcome:
    """Run one workload to its end with its own concurrency. by: an adapter is a model's name, or the number in
    llama.cpp's field "lora"; that one sends no token ids back, so chains of several calls need the former."""
    chains: dict[str, list[Call]] = defaultdict(list)
    for call in workload.calls:
        chains[call.chain].append(call)
    waiting = list(chains.values())[::-1]
    answers: list[Answer] = []
    limits = aiohttp.ClientTimeout(total=limit_s)
    # a connection for each request: llama.cpp closes one after its answer, and a second request may run into that
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=limits, connector=connector) as http:

        async def worker() -> None:
            while waiting:
                said: list[int] = []
                for call in waiting.pop():
                    said += call.prompt
                    answer = await ask(http, url, key, base, call, said, by)
                    answers.append(answer)
                    said = said + answer.tokens

        began = time.perf_counter()
        await asyncio.gather(*[worker() for _ in range(workload.concurrency)])
        seconds = time.perf_counter() - began
    return Outcome(workload.name, seconds, tuple(answers))
