"""One engine's face on several: chooses who serves each request, and who computes its prompt.

Owns what was routed where. It must not know tenants or text: a request's namespace is all it keys by.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tenantry.platform.fleet.choice import MOST_AHEAD, Candidate, choose
from tenantry.platform.fleet.hints import EngineHints, Sessions, blocks
from tenantry.platform.fleet.relay import Relay
from tenantry.platform.fleet.report import EngineReport, report
from tenantry.platform.fleet.routed import Routed, Started
from tenantry.platform.fleet.totals import guessing_together, stats_together
from tenantry.runtime.client import EngineClient
from tenantry.runtime.config import Role
from tenantry.runtime.counts import Guessing, Stats
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.messages import Submit

WORTH_TOKENS = 64  # that are left of a prompt: fewer are computed where they are decoded
_HOLDING = ("resident", "loading")


@dataclass(slots=True)
class Engine:
    """One engine of the fleet. retried: requests that it was given and another one answered."""

    name: str
    role: Role
    client: EngineClient
    hints: EngineHints = field(default_factory=EngineHints)
    epoch: str = ""
    retried: int = 0

    def candidate(self, submit: Submit, prompt: Sequence[bytes], session: str | None) -> Candidate:
        stats, adapter = self.client.stats, submit.adapter
        resident = adapter is None or (
            stats is not None and any(a.digest == adapter and a.state in _HOLDING for a in stats.adapters)
        )
        return Candidate(self.name, self.client.open, self.hints.known(prompt), session == self.name, resident)


class Router:
    """Satisfies the gateway's Engine. An engine that is away, silent or draining is not chosen.

    most_ahead: see choice.choose. Roles are preferences: an engine of the role decode gets long prompts computed by
    one of the role prefill, but as long as one of any role is up, requests are answered.
    """

    def __init__(self, engines: Sequence[Engine], most_ahead: int = MOST_AHEAD) -> None:
        self.engines = tuple(engines)
        self._by_name = {engine.name: engine for engine in self.engines}
        self._most_ahead = most_ahead
        self._sessions = Sessions()

    @classmethod
    def alone(cls, client: EngineClient) -> "Router":
        """The one engine of a deployment that has no more."""
        return cls([Engine("engine", "both", client)])

    async def connect(self) -> None:
        for engine in self.engines:
            await engine.client.connect()

    async def close(self) -> None:
        await asyncio.gather(*(engine.client.close() for engine in self.engines))

    @property
    def ready(self) -> bool:
        """Whether any engine takes requests."""
        return any(engine.client.ready for engine in self.engines)

    @property
    def stats(self) -> Stats | None:
        """Of all engines together that have answered."""
        return stats_together([stats for engine in self.engines if (stats := engine.client.stats) is not None])

    def generate(self, submit: Submit) -> Routed:
        """Send a request. It always gives a Routed: what goes wrong is raised by its iteration."""
        return Routed(submit, self._start)

    def drop(self, digest: bytes) -> None:
        """Retire an adapter everywhere. An engine that is away comes back without it."""
        for engine in self.engines:
            with contextlib.suppress(EngineUnavailable):
                engine.client.drop(digest)

    def keep_session(self, session: bytes, keep_s: float, pin: bool = False) -> None:
        """Wherever it is; to the other engines it is unknown."""
        for engine in self.engines:
            with contextlib.suppress(EngineUnavailable):
                engine.client.keep_session(session, keep_s, pin)

    def drop_session(self, session: bytes) -> None:
        """Everywhere, for it may have been served by several."""
        for engine in self.engines:
            with contextlib.suppress(EngineUnavailable):
                engine.client.drop_session(session)

    def drop_namespace(self, namespace: bytes, abort: bool = False) -> None:
        """Everywhere; what goes on there goes on without it."""
        for engine in self.engines:
            with contextlib.suppress(EngineUnavailable):
                engine.client.drop_namespace(namespace, abort)

    def drop_tenant(self, tenant: str, abort: bool = False) -> None:
        """As drop_namespace."""
        for engine in self.engines:
            with contextlib.suppress(EngineUnavailable):
                engine.client.drop_tenant(tenant, abort)

    async def guesses(self) -> tuple[Guessing, ...]:
        """What guessing did, over all engines that answer. Raises EngineUnavailable if none does."""
        up = [engine.client for engine in self.engines if engine.client.ready]
        if not up:
            raise EngineUnavailable(None, "the engine is not ready")
        answers = await asyncio.gather(*(client.guesses() for client in up), return_exceptions=True)
        found = []
        for answer in answers:
            if isinstance(answer, BaseException):
                if not isinstance(answer, EngineUnavailable):
                    raise answer
            else:
                found.append(answer)
        if not found:
            raise EngineUnavailable(None, "the engine does not answer")
        return guessing_together(found)

    def reports(self) -> list[EngineReport]:
        """Every engine as of its last answer, for people."""
        return [
            report(engine.name, engine.role, engine.client, len(engine.hints), engine.retried)
            for engine in self.engines
        ]

    def _start(self, submit: Submit, failed: tuple[str, ...]) -> Started | None:
        """Give it to the best engine that has not failed it yet, or None if there is no such. failed: in order."""
        for known in self.engines:
            self._notice(known)
        prompt = list(blocks(submit.namespace, submit.prompt))
        engine = self._owner(submit, prompt, failed)
        if engine is None:
            return None
        if failed:
            self._by_name[failed[-1]].retried += 1
        computing = self._computing(submit, prompt, engine, failed)
        engine.hints.learn(prompt)
        self._sessions.served(submit, engine.name)
        if computing is None:
            return Started(engine.name, engine.client.generate(submit))
        computing.hints.learn(prompt)
        expected = msgspec.structs.replace(submit, expect=True)
        generation = engine.client.generate(expected)  # first: it loads the adapter and reserves pages meanwhile
        return Started(engine.name, generation, Relay(submit, computing.client, engine.client))

    def _owner(self, submit: Submit, prompt: Sequence[bytes], failed: tuple[str, ...]) -> Engine | None:
        """Who decodes, journals and answers."""
        up = [engine for engine in self.engines if engine.client.ready and engine.name not in failed]
        able = [engine for engine in up if engine.role != "prefill"] or up
        return self._best(able, submit, prompt, self._sessions.engine(submit))

    def _computing(
        self, submit: Submit, prompt: Sequence[bytes], owner: Engine, failed: tuple[str, ...]
    ) -> Engine | None:
        """Who computes the prompt for an engine that decodes: nobody, if that has nearly all of it."""
        if owner.role != "decode" or len(submit.prompt) - owner.hints.known(prompt) < WORTH_TOKENS:
            return None
        up = [e for e in self.engines if e.role == "prefill" and e.client.ready and e.name not in failed]
        return self._best(up, submit, prompt, None)

    def _best(
        self, engines: Sequence[Engine], submit: Submit, prompt: Sequence[bytes], session: str | None
    ) -> Engine | None:
        chosen = choose([engine.candidate(submit, prompt, session) for engine in engines], self._most_ahead)
        return None if chosen is None else self._by_name[chosen.name]

    def _notice(self, engine: Engine) -> None:
        """An engine that was restarted has nothing on its device; where its disk outlived it, that has what was used
        twice and what sessions keep, so hints stay: one that is wrong costs a computation."""
        pong = engine.client.last_pong
        if pong is not None and pong.epoch != engine.epoch:
            engine.epoch = pong.epoch
            if not any(tier.tier == "disk" and tier.pages for tier in pong.stats.tiers):
                engine.hints.clear()
                self._sessions.forget(engine.name)
