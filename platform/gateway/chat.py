"""From a decoded request to a running generation: resolve, bound, tokenise, admit, submit; in that order.

Owns the life of a completion up to the engine's door. Each step is the earliest that can refuse what it refuses.
It must not know HTTP: routes give it a Principal and a struct, and read the Run it returns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

import msgspec

from tenantry.platform.core.errors import EngineAway, InvalidInput, Overloaded, TimedOut
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.fleet.report import EngineReport
from tenantry.platform.gateway import bounds
from tenantry.platform.gateway.cache_options import NOTHING, Kept, kept_for
from tenantry.platform.gateway.openai import ChatRequest, CompletionRequest
from tenantry.platform.gateway.render import ChatRenderer, Head, Muted, Renderer, TextRenderer
from tenantry.platform.gateway.runs import Decoder, Generation, Run, Runs, Store
from tenantry.platform.metering.admission import Admission, Order
from tenantry.platform.registry.models import Target
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants.principal import Principal
from tenantry.runtime.counts import Guessing, Stats
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.namespace import Namespace

TOKENISE_DEADLINE_S = 5.0
TOKENISE_AT_ONCE = 2


class Text(Protocol):
    """The base model's tokenizer and chat template. longest_token: most bytes that one id stands for."""

    longest_token: int

    def encode(self, text: str) -> list[int]: ...
    def render(self, turns: list[dict[str, str]]) -> list[int]: ...
    def token_bytes(self, token: int) -> bytes: ...
    def decoder(self, stops: tuple[str, ...], min_tokens: int) -> Decoder: ...


class Engine(Protocol):
    """All engines of the deployment behind one face (platform/fleet/router.py). ready: whether one answers and has
    loaded its model. stats: as of the last answers. reports: each engine by itself."""

    @property
    def ready(self) -> bool: ...
    @property
    def stats(self) -> Stats | None: ...
    def generate(self, submit: Submit) -> Generation: ...
    def reports(self) -> list[EngineReport]: ...
    async def guesses(self) -> tuple[Guessing, ...]: ...
    def keep_session(self, session: bytes, keep_s: float, pin: bool) -> None: ...
    def drop_session(self, session: bytes) -> None: ...
    def drop_namespace(self, namespace: bytes, abort: bool) -> None: ...
    def drop_tenant(self, tenant: str, abort: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything about the one base model that answers here. control_allowed: whether raw prompts may hold
    special tokens (an installation's choice). start_deadline_s: after which a request that has not started is
    refused. weights: of tenants by name, how large their shares of the engine are; 1 for those not named."""

    engine: Engine
    text: Text
    limits: bounds.ModelLimits
    control_allowed: bool = False
    start_deadline_s: float = 120.0
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of somebody who keeps its history, and its answer too. target: the weights, which he chose.

    claim: awaited once the request is admitted, before any token; what it raises refuses the request. store: see Run.
    kept: what the engine keeps of it afterwards.
    """

    target: Target
    renderer: Renderer
    claim: Callable[[], Awaitable[None]] | None = None
    store: Store | None = None
    kept: Kept = NOTHING


@dataclass(frozen=True, slots=True)
class Opened:
    """A generation under way. headers: what the response says about who answered, and the limits left."""

    run: Run
    headers: dict[str, str]


class ChatService:
    def __init__(
        self,
        serving: Serving,
        registry: Registry,
        admission: Admission,
        runs: Runs,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
        keep_s: int = 1800,
    ) -> None:
        self._serving = serving
        self._keep_s = keep_s
        self._registry = registry
        self._admission = admission
        self._runs = runs
        self._telemetry = telemetry
        self._clock = clock
        self._pool = ThreadPoolExecutor(TOKENISE_AT_ONCE, thread_name_prefix="tokenise")

    async def open(
        self,
        principal: Principal,
        request: ChatRequest | CompletionRequest,
        request_id: UUID,
        turn: Turn | None = None,
    ) -> Opened:
        """Raises the typed refusal of the first step that objects; after it returns, the request will be settled."""
        if self._runs.draining:
            raise Overloaded("This gateway is shutting down.", code="draining")
        if not self._serving.engine.ready:
            raise EngineAway("The engine is not ready.")
        request.check()
        target = turn.target if turn else await self._registry.resolve(principal.tenant_id, request.model)
        bounds.check_numbers(request, self._serving.limits)
        prompt = await self._tokenise(request)
        sampling = bounds.sampling(request, len(prompt), self._serving.limits)
        if request.prewarms:
            sampling = _least(sampling)
        kept = turn.kept if turn else self._kept(principal, request)
        order = _order(principal, target, len(prompt), sampling, request.speculate is not False)
        ticket = await self._admission.admit(order, request_id)
        try:
            renderer = turn.renderer if turn else self._renderer(request, target, prompt, sampling, ticket.request_id)
            if request.prewarms:
                renderer = Muted(renderer)
            if turn is not None and turn.claim is not None:
                await turn.claim()
            submit = Submit(
                request_id=str(ticket.request_id),
                prompt=prompt,
                sampling=sampling,
                namespace=Namespace(principal.isolation, target.weights).key,
                adapter=target.digest,
                share_key=share_key(principal),
                receipt=ticket.receipt_bytes,
                deadline=self._serving.start_deadline_s,
                speculate=order.guesses,
                priority=request.priority or 0,
                weight=self._serving.weights.get(principal.tenant_name, 1.0),
                session=kept.session,
                keep_s=kept.keep_s,
                pin=kept.pin,
            )
            run = Run(
                ticket=ticket,
                generation=self._serving.engine.generate(submit),
                decoder=lambda: self._serving.text.decoder(sampling.stop, sampling.min_tokens),
                renderer=renderer,
                stream=request.streams,
                telemetry=self._telemetry,
                store=turn.store if turn else None,
            )
        except BaseException:
            self._runs.give_up(ticket)
            raise
        self._runs.start(run)
        return Opened(run, {**ticket.headers, **_answered_by(target)})

    async def guesses(self) -> tuple[Guessing, ...]:
        """What the engine's guesses came to. Raises EngineUnavailable."""
        return await self._serving.engine.guesses()

    def _kept(self, principal: Principal, request: ChatRequest | CompletionRequest) -> Kept:
        return kept_for(principal, request.prompt_cache_key, request.prompt_cache_options, self._keep_s)

    def engines(self) -> list[EngineReport]:
        """Every engine, as of its last answer."""
        return self._serving.engine.reports()

    async def _tokenise(self, request: ChatRequest | CompletionRequest) -> tuple[int, ...]:
        text, limits = self._serving.text, self._serving.limits
        if isinstance(request, CompletionRequest):
            prompt = request.single_prompt
            if not isinstance(prompt, str):
                if len(prompt) >= limits.context:
                    bounds.too_long("prompt", f"the prompt alone holds {len(prompt)}", limits)
                bounds.check_ids(prompt, limits, self._serving.control_allowed)
                return tuple(prompt)
            self._check_bytes("prompt", len(prompt.encode()))
            return tuple(await self._in_pool(lambda: text.encode(prompt)))
        turns = request.turns
        self._check_bytes("messages", sum(len(turn["content"].encode()) for turn in turns))
        return tuple(await self._in_pool(lambda: text.render(turns)))

    def _check_bytes(self, field: str, size: int) -> None:
        """What could not fit even if every token were the longest is not worth tokenising."""
        limits = self._serving.limits
        if size > limits.context * self._serving.text.longest_token:
            bounds.too_long(field, f"{size} bytes of text cannot fit", limits)

    async def _in_pool(self, work: Callable[[], list[int]]) -> list[int]:
        try:
            async with asyncio.timeout(TOKENISE_DEADLINE_S):
                return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except TimeoutError:
            raise TimedOut("The prompt took too long to tokenise.") from None
        except ValueError as error:
            raise InvalidInput("The base model's chat template refuses these messages.", param="messages") from error

    def _renderer(
        self,
        request: ChatRequest | CompletionRequest,
        target: Target,
        prompt: tuple[int, ...],
        sampling: Sampling,
        request_id: UUID,
    ) -> Renderer:
        chat = isinstance(request, ChatRequest)
        head = Head(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{request_id.hex}",
            created=int(self._clock()),
            model=target.model,
            token_bytes=self._serving.text.token_bytes,
            prompt_ids=prompt,
            choices=sampling.n,
            return_ids=bool(request.return_token_ids),
            include_usage=request.include_usage,
        )
        return ChatRenderer(head) if chat else TextRenderer(head)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _least(sampling: Sampling) -> Sampling:
    """What computes a prompt and hardly more."""
    return msgspec.structs.replace(sampling, max_tokens=1, min_tokens=0, n=1, temperature=0.0, logprobs=None)


def share_key(principal: Principal) -> str:
    """One fair share per tenant, and inside of it one per key, under names that say nothing about them."""
    return f"{_opaque(principal.isolation)}/{_opaque(principal.key_id.bytes)}"


def tenant_share(tenant_id: UUID) -> str:
    """What the engine calls a tenant; see share_key."""
    return _opaque(tenant_id.bytes)


def _opaque(name: bytes) -> str:
    return blake2b(name, digest_size=8, person=b"tenantry-share").hexdigest()


def _order(principal: Principal, target: Target, prompt_tokens: int, sampling: Sampling, guesses: bool) -> Order:
    return Order(
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        base_model_id=target.base.id,
        adapter_id=target.adapter_id,
        adapter_version_id=target.version_id,
        model=target.model,
        prompt_tokens=prompt_tokens,
        completion_tokens=sampling.max_tokens * sampling.n,
        guesses=guesses,
    )


def _answered_by(target: Target) -> dict[str, str]:
    headers = {"x-tenantry-model-digest": target.base.digest.hex()}
    if target.digest is not None:
        headers["x-tenantry-adapter-version"] = str(target.number)
        headers["x-tenantry-adapter-digest"] = target.digest.hex()
    return headers
