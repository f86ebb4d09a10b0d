"""A whole gateway for tests: real HTTP, real PostgreSQL, real tokenizer code, and a scripted engine in its process.

Owns the fakes that the platform's tests share. The engine here keeps the promises of runtime.client's: it counts,
it ends every generation once, and an abort still gives a Finished with what was generated.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from litestar import Litestar
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tenantry.adapters.manifest import BaseSpec
from tenantry.platform.app import Gateway, Parts, create_app
from tenantry.platform.core.database import Database
from tenantry.platform.core.embedded import EmbeddedPostgres
from tenantry.platform.core.roles import APP, OWNER
from tenantry.platform.core.secrets import load_peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.fleet.report import EngineReport
from tenantry.platform.fleet.router import Router
from tenantry.platform.gateway.bounds import ModelLimits
from tenantry.platform.gateway.chat import Serving
from tenantry.platform.gateway.server import DrainingServer, config
from tenantry.platform.registry.bases import ensure_base
from tenantry.platform.registry.service import Allowance
from tenantry.platform.tenants import service
from tenantry.platform.tenants.bootstrap import ensure_operator
from tenantry.runtime.counts import Guessing, Stats
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.messages import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Refused,
    Submit,
    TokenLogprob,
    Tokens,
    Usage,
)
from tenantry.runtime.text import TextModel

CONTEXT = 512
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPEC = BaseSpec("llama", 2, 32, 64, 4, 2, 8, 300, bytes(range(32)))


def tiny_text_model() -> TextModel:
    """Byte-level, without merges: ids 0-255 stand for one byte each, then two control tokens."""
    return TextModel(_tiny_tokenizer(), _TINY_CONFIG, TEMPLATE)


def write_tiny_model(directory: Path) -> Path:
    """The same as a model directory, for a real worker process."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(_tiny_tokenizer())
    (directory / "tokenizer_config.json").write_text(json.dumps(_TINY_CONFIG))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


_TINY_CONFIG = {"eos_token": "<|im_end|>"}


def _tiny_tokenizer() -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")])
    return str(tokenizer.to_str())


@dataclass(slots=True)
class ScriptedGeneration:
    """Says the letters of `script`, over and over, one token per step."""

    submit: Submit
    engine: "ScriptedEngine"
    aborted: bool = False
    lost: bool = False
    generated: int = 0

    def __aiter__(self) -> "ScriptedGeneration":
        self._events = self._run()
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    _events: AsyncIterator[Event] = field(init=False)

    def abort(self) -> None:
        self.aborted = True

    async def _run(self) -> AsyncIterator[Event]:
        submit, sampling, engine = self.submit, self.submit.sampling, self.engine
        if engine.refuse is not None:
            yield Refused(submit.request_id, *engine.refuse)
            return
        reasons: dict[int, FinishReason] = {}
        deciders = [engine.text.decoder(sampling.stop, sampling.min_tokens) for _ in range(sampling.n)]
        for step in range(sampling.max_tokens):
            await asyncio.sleep(engine.pace)
            for choice in range(sampling.n):
                if choice in reasons or self.aborted:
                    continue
                if self.lost:
                    raise EngineUnavailable(None, "the engine died")
                token = engine.letter(submit, choice, step)
                self.generated += 1
                logprobs = None
                if sampling.logprobs is not None:
                    top = tuple((token + i, -0.5 - i) for i in range(sampling.logprobs))
                    logprobs = (TokenLogprob(token, -0.5, top),)
                yield Tokens(submit.request_id, choice, (token,), logprobs)
                deciders[choice].push((token,))
                matched: str | int | None = deciders[choice].matched
                if token in sampling.stop_token_ids:
                    matched = token
                if matched is not None or step + 1 == sampling.max_tokens:
                    reasons[choice] = "stop" if matched is not None else "length"
                    yield ChoiceFinished(submit.request_id, choice, reasons[choice], matched)
            if self.aborted or len(reasons) == sampling.n:
                break
        yield Finished(submit.request_id, self.usage, "abort" if self.aborted else "stop")

    @property
    def usage(self) -> Usage:
        found = self.engine.found
        return Usage(len(self.submit.prompt), sum(found), self.generated, cached_host=found[1], cached_disk=found[2])


@dataclass(slots=True)
class ScriptedEngine:
    """pace: seconds per token. script: what every generation says; an adapter's begins with its digest's letter.
    found: cached tokens that every request is told of: on the device, in host memory, on disk."""

    text: TextModel
    script: str = "the quick brown fox jumps over the lazy dog. "
    pace: float = 0.0
    ready: bool = True
    found: tuple[int, int, int] = (0, 0, 0)
    stats: Stats | None = None
    refuse: tuple[str, str, str | None] | tuple[str, str, str | None, int] | None = None
    guessing: tuple[Guessing, ...] = ()
    reported: list[EngineReport] = field(default_factory=list)
    generations: list[ScriptedGeneration] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    dropped_sessions: list[bytes] = field(default_factory=list)
    forgotten: list[tuple[bytes, bool]] = field(default_factory=list)
    dropped_tenants: list[tuple[str, bool]] = field(default_factory=list)
    kept_sessions: list[tuple[bytes, float, bool]] = field(default_factory=list)
    _encoded: dict[str, list[int]] = field(default_factory=dict)

    def generate(self, submit: Submit) -> ScriptedGeneration:
        generation = ScriptedGeneration(submit, self)
        self.generations.append(generation)
        return generation

    def reports(self) -> list[EngineReport]:
        return self.reported

    async def guesses(self) -> tuple[Guessing, ...]:
        if not self.ready:
            raise EngineUnavailable(None, "the engine is not ready")
        return self.guessing

    def keep_session(self, session: bytes, keep_s: float, pin: bool = False) -> None:
        self.kept_sessions.append((session, keep_s, pin))

    def drop_session(self, session: bytes) -> None:
        self.dropped_sessions.append(session)

    def drop_namespace(self, namespace: bytes, abort: bool) -> None:
        """Its KV is remembered as gone; its generations end, if they are to."""
        self.forgotten.append((namespace, abort))
        for generation in self.generations:
            generation.aborted |= abort and generation.submit.namespace == namespace

    def drop_tenant(self, tenant: str, abort: bool) -> None:
        self.dropped_tenants.append((tenant, abort))
        for generation in self.generations:
            generation.aborted |= abort and generation.submit.tenant == tenant

    async def drop(self, digest: bytes) -> None:
        self.dropped.append(digest)

    @property
    def submitted(self) -> list[Submit]:
        return [generation.submit for generation in self.generations]

    def letter(self, submit: Submit, choice: int, step: int) -> int:
        text = self.script if submit.adapter is None else f"[{submit.adapter.hex()[:4]}] {self.script}"
        if text not in self._encoded:
            self._encoded[text] = self.text.encode(text)
        ids = self._encoded[text]
        return ids[(step + choice) % len(ids)]


@dataclass
class LiveGateway:
    """A gateway listening on loopback, in a thread with a loop of its own. run() executes on that loop."""

    url: str
    engine: ScriptedEngine
    operator_key: str
    settings: Settings
    gateway: Gateway
    server: DrainingServer
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def gateway_app(self) -> Litestar:
        """The application inside of the edge, for tests that enumerate its routes."""
        return self.gateway.app

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def make_tenant(self, name: str) -> tuple[str, str]:
        """(tenant's id, an API key with all of a tenant's scopes)."""
        return self.run(self._make_tenant(name))  # type: ignore[no-any-return]

    async def _make_tenant(self, name: str) -> tuple[str, str]:
        database, peppers = self.gateway.parts.database, self.gateway.parts.peppers
        async with database.operator() as connection:
            tenant = await service.create_tenant(connection, name)
            issued = await service.create_key(connection, tenant.id, peppers, by=None, name="test")
        return f"ten_{tenant.id.hex}", issued.text


@asynccontextmanager
async def running_gateway(
    dsn: str, data_dir: Path, allowance: Allowance | None = None, worker: Router | None = None, **options: Any
) -> AsyncIterator[LiveGateway]:
    """On the running loop. worker: of real engines, instead of the scripted one. options: settings."""
    settings = Settings(data_dir=data_dir, **options)
    database = await Database.connect(dsn, settings)
    try:
        peppers = load_peppers(settings)
        key_file = settings.secrets_dir / "operator.key"
        await ensure_operator(database, peppers, settings.environment, key_file)
        text = tiny_text_model()
        engine = ScriptedEngine(text)
        base = await ensure_base(database, "base", SPEC)
        limits = ModelLimits(text.vocab_size, CONTEXT, settings.default_max_tokens, text.control)
        allowed, deadline = settings.control_tokens == "allow", settings.start_deadline
        serving = Serving(worker or engine, text, limits, allowed, deadline, settings.weights_by_tenant)
        parts = Parts(settings, database, peppers, base, SPEC, serving, engine.drop, allowance)
        app, gateway = create_app(parts)
        server = DrainingServer(config(app, "127.0.0.1", 0), gateway.drain)
        task = asyncio.create_task(server.serve())
        while not server.started:
            if task.done():
                await task
                raise RuntimeError("the gateway did not start")
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.port}"
        yield LiveGateway(url, engine, key_file.read_text(), settings, gateway, server, asyncio.get_running_loop())
        server.drain_and_exit()
        await task
    finally:
        await database.close()


@contextmanager
def cloned_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    """The address, for the app's role, of a fresh copy of a migrated database."""
    name = f"g_{uuid4().hex}"
    create = f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER} STRATEGY FILE_COPY"
    asyncio.run(_as_admin(server, create))
    try:
        yield server.dsn(APP, name)
    finally:
        asyncio.run(_as_admin(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


async def _as_admin(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.admin_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class GatewayThread:
    """running_gateway for synchronous tests."""

    def __init__(self, dsn: str, data_dir: Path, **options: Any) -> None:
        self._make: Callable[[], Any] = lambda: running_gateway(dsn, data_dir, **options)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway")
        self.live: LiveGateway | None = None

    def __enter__(self) -> LiveGateway:
        self._thread.start()
        self._ready.wait(60)
        if self._error is not None or self.live is None:
            raise RuntimeError("the gateway did not start") from self._error
        return self.live

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to the test's own thread
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._make() as live:
            self.live = live
            self._ready.set()
            await self._stop.wait()


def problems_of(body: bytes) -> set[str]:
    """Codes of the problems in a 422."""
    return {problem["code"] for problem in json.loads(body)["error"]["problems"]}
