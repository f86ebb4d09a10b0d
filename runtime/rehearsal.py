"""A real worker process with the scripted runner, for whoever rehearses load, crashes and ends of service.

Owns spawning it as a supervisor would, and making requests for it. It must not know pytest or the gateway.
"""

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any, Final

from tenantry.runtime.client import EngineClient, Generation
from tenantry.runtime.config import CacheConfig, EngineConfig, write_config
from tenantry.runtime.messages import ChoiceFinished, Finished, Refused, Sampling, Submit, Tokens
from tenantry.runtime.testing import Fault
from tenantry.runtime.text import TextModel

_IMPORTS: Final = Path(__file__).parents[2]
START_S: Final = 600.0  # a fresh checkout compiles its kernels first: 40 s of a core, of which it may have little


class WorkerProcess:
    """A real worker, its client and its journal. options: fields of EngineConfig; the scripted runner by default."""

    def __init__(self, directory: Path, model: Path, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "model_dir": model,
            "adapter_dir": directory / "adapters",
            "socket": f"ipc://{directory}/engine.sock",
            "journal_dir": directory / "journal",
            "cache": CacheConfig(pages=1024),
            "runner": "scripted-faults",
        }
        self.config = EngineConfig(**{**defaults, **options})
        self._file = directory / "worker.json"
        self._log = directory / "worker.log"
        self.client = EngineClient(self.config.socket)

    async def start(self) -> None:
        """Spawn a worker and wait until the client may use it."""
        write_config(self.config, self._file)
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tenantry.runtime.worker", str(self._file),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=_IMPORTS,
            )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            while b'"ready"' not in (line := await self.process.stdout.readline()):
                assert line, f"ended before it was ready: {self.log}"
        if not self.client._tasks:
            await self.client.connect()
        old = self.client.last_pong
        try:
            async with asyncio.timeout(20):
                while not self.client.ready or self.client.last_pong is old:
                    await self.client.ping(0.2)
        except TimeoutError:
            raise AssertionError(f"no answer; exit status {self.process.returncode}; {self.log}") from None

    async def stop(self) -> None:
        await self.client.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def wait(self, seconds: float = 20) -> int:
        return await asyncio.wait_for(self.process.wait(), seconds)

    @property
    def log(self) -> str:
        return self._log.read_text()


class Requests:
    """Makes Submits with unique ids for a tokenizer."""

    def __init__(self, model: TextModel) -> None:
        self.text = model
        self._ids = itertools.count()

    def make(self, prompt: str = "the cat sat on", fault: Fault | None = None, **options: Any) -> Submit:
        ids = self.text.encode(prompt)
        if fault is not None:
            ids.append(self.text.vocab_size - fault)
        fields = {k: options.pop(k) for k in ("request_id", "adapter", "receipt", "deadline") if k in options}
        sampling = Sampling(**{"max_tokens": 16, "temperature": 0.0, **options})
        request_id = fields.pop("request_id", f"r{next(self._ids)}")
        return Submit(
            request_id, tuple(ids), sampling, bytes(32), fields.pop("adapter", None), "tenant",
            fields.pop("receipt", b"receipt of " + request_id.encode()), **fields,
        )  # fmt: skip


async def first_token(generation: Generation) -> Tokens:
    """Its next event, which must bring tokens."""
    event = await generation.__anext__()
    assert isinstance(event, Tokens)
    return event


async def drain(generation: Generation) -> tuple[dict[int, list[int]], list[ChoiceFinished], Finished | Refused]:
    """Tokens by choice, the ends of choices, and the terminal event."""
    tokens: dict[int, list[int]] = {}
    ends: list[ChoiceFinished] = []
    async for event in generation:
        match event:
            case Tokens():
                tokens.setdefault(event.choice, []).extend(event.tokens)
            case ChoiceFinished():
                ends.append(event)
            case Finished() | Refused():
                last = event
    return tokens, ends, last
