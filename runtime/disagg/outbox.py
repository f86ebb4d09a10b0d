"""Prompts that this engine computes for others: from the request to the segment that holds its pages.

Owns hand_off requests and segments. It must not know the scheduler, steps or sockets: a hand_off request runs like
any other, for the whole pages of its prompt and one token that nobody gets, and its end is turned into a HandedOver.

Who journals: not this engine. A request has one stream of records, of the engine that owns it, which is the one that
decodes: it exists from Expect to the end, whatever becomes of the hand-off, and knows what the tenant received. What
was computed here travels as counters with the hand-off and becomes part of the owner's records when it is taken. A
prompt that was computed here and never taken is owed by nobody: the owner computes it again and counts that.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tenantry.runtime.disagg.names import names
from tenantry.runtime.disagg.transport import Segment, Sender
from tenantry.runtime.messages import (
    ChoiceFinished,
    Event,
    Finished,
    HandedOver,
    HandOff,
    Refused,
    Submit,
    Tokens,
    Usage,
)
from tenantry.runtime.plan import Departure, Row


@dataclass(slots=True)
class _Job:
    submit: Submit
    pages: int
    segment: Segment | None = None
    read: bool = False  # its pages' bytes are in the segment


class Outbox:
    """page_format, page_bytes: of the pages that this engine computes. keep_s: how long a segment waits for its
    reader's Release."""

    def __init__(self, sender: Sender, page_size: int, page_bytes: int, page_format: str, keep_s: float) -> None:
        self._sender = sender
        self._page_size, self._page_bytes, self._format = page_size, page_bytes, page_format
        self._keep_s = keep_s
        self._jobs: dict[str, _Job] = {}
        self._kept: dict[str, tuple[Segment, float]] = {}  # handed over, and since when
        self.sent = 0
        self.unsent = 0
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._jobs

    def take(self, submit: Submit) -> Submit | Refused:
        """What the scheduler is to run for a hand_off request."""
        pages = (len(submit.prompt) - 1) // self._page_size  # at least the last token is the reader's
        if pages <= 0:
            return Refused(submit.request_id, "invalid_request", "there is no whole page to hand over", "prompt")
        self._jobs[submit.request_id] = _Job(submit, pages)
        sampling = msgspec.structs.replace(submit.sampling, max_tokens=1, min_tokens=0, n=1, stop=(), logprobs=None)
        prompt = submit.prompt[: pages * self._page_size]
        return msgspec.structs.replace(
            submit, prompt=prompt, sampling=sampling, speculate=False, session=b"", keep_s=0.0, pin=False
        )

    def refused(self, request_id: str) -> None:
        """The scheduler did not want it."""
        del self._jobs[request_id]

    def departures(self, rows: Iterable[tuple[str, Row]]) -> tuple[Departure, ...]:
        """Of a step's rows, by request: those that end a prompt of ours leave with it."""
        found = []
        for request_id, row in rows:
            job = self._jobs.get(request_id)
            if job is None or row.draw is None:
                continue
            try:
                job.segment = self._sender.make(job.pages * self._page_bytes)
            except OSError:
                self.unsent += 1
                continue
            found.append(Departure(request_id, tuple(row.pages[: job.pages]), job.segment.view))
        return tuple(found)

    def departed(self, request_ids: Iterable[str]) -> None:
        """Their pages' bytes have been read."""
        for request_id in request_ids:
            self._jobs[request_id].read = True

    def told(self, events: Iterable[Event], now: float) -> tuple[list[Event], list[Event]]:
        """(others' events, ours): of our requests only the end is told, as a hand-over if there is one."""
        others: list[Event] = []
        ours: list[Event] = []
        for event in events:
            if not isinstance(event, Tokens | ChoiceFinished | Finished | Refused) or event.request_id not in self:
                others.append(event)
            elif isinstance(event, Finished | Refused):
                ours.append(self._end(event, now))
        return others, ours

    def release(self, request_id: str) -> None:
        """The reader has it, or will never want it. Unknown ids are ignored."""
        kept = self._kept.pop(request_id, None)
        if kept is not None:
            kept[0].remove()

    def expire(self, now: float) -> None:
        """Nobody said what became of these: their reader's gateway is gone."""
        for request_id in [r for r, (_, since) in self._kept.items() if now - since > self._keep_s]:
            self.release(request_id)

    def _end(self, event: Finished | Refused, now: float) -> Event:
        request_id = event.request_id
        job = self._jobs.pop(request_id)
        segment, submit = job.segment, job.submit
        if (
            segment is None
            or not job.read
            or not isinstance(event, Finished)
            or event.reason not in ("stop", "length")
        ):
            if segment is not None:
                segment.remove()
            return event
        self.sent += 1
        self.bytes += job.pages * self._page_bytes
        self.release(request_id)  # an earlier attempt's
        self._kept[request_id] = segment, now
        digests = segment.seal(list(names(submit.namespace, submit.prompt[:-1], self._page_size)))
        usage = Usage(event.usage.prompt, event.usage.cached)
        return HandedOver(
            request_id,
            HandOff(
                submit.namespace, submit.adapter, submit.sampling, usage,
                self._format, segment.name, self._page_bytes, digests,
            ),
        )  # fmt: skip
