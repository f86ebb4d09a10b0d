"""When a request could start, from what is ahead of it and from what steps take.

Owns the estimate that early refusals rest on, and how long completions really get. It leans to optimism: a request
that is refused could not have been in time. It must not know who waits, only how much.
"""

from dataclasses import dataclass
from zlib import crc32

from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.scheduler.fairness import Flow
from tenantry.runtime.scheduler.steptime import StepTimeModel

LATELY = 64  # completions over which their length is averaged
SHORTEST_RETRY_S = 1.0


@dataclass(slots=True)
class Ahead:
    """requests that start before, with `prompt` tokens to compute together and at most `decode` to draw."""

    requests: float = 0.0
    prompt: float = 0.0
    decode: float = 0.0


class Forecast:
    def __init__(self, config: ScheduleConfig, times: StepTimeModel) -> None:
        self._config, self._times = config, times
        self._drawn = 1.0  # of the tokens that a request may draw, lately
        self._ended = 0

    def ended(self, completion: int, most: int) -> None:
        """A request ran to its end."""
        self._ended += 1
        self._drawn += (completion / most - self._drawn) / min(self._ended, LATELY)

    def ahead(self, flow: Flow | None, waiting: list[Flow]) -> Ahead:
        """What starts before a new request of this tenant (None: it has nothing yet): what it has waiting itself, and
        of every other tenant as much, by their weights, as far as that has so much."""
        ahead = Ahead()
        if flow is None or not flow.waiting:
            return ahead
        own = flow.prompt + flow.decode
        for other in waiting:
            theirs = other.prompt + other.decode
            share = 1.0 if other is flow else min(1.0, own * other.weight / (flow.weight * theirs))
            ahead.requests += share * other.waiting
            ahead.prompt += share * other.prompt
            ahead.decode += share * other.decode
        return ahead

    def seconds(self, ahead: Ahead, running: int, behind: int, attended: int) -> float:
        """Until a request could start behind all this, while `running` sequences with `attended` positions run, which
        have `behind` prompt tokens left to compute. 0 while nothing is known of steps."""
        if not self._times.learned:
            return 0.0
        places = self._config.max_running
        known = self._times.report()
        rows = min(places, running + ahead.requests)
        wide = attended * rows / running if running else 0.0
        step = self._times.seconds(int(rows), attended=int(wide))
        prompts = (ahead.prompt + behind) * known.prompt_token
        target = self._config.itl_target_ms / 1e3
        if target > step:
            prompts *= target / (target - step)  # beside decoding rows
        ends = running + ahead.requests + 1 - places
        if ends <= 0 or not ahead.requests:
            return prompts
        each = self._drawn * ahead.decode / ahead.requests
        return prompts + ends * each / places * step

    def retry(self, late_s: float, request_id: str) -> float:
        """Seconds after which a request that would be so late may be sent again, up to a quarter more for some: who
        was refused together must not return together."""
        spread = 1 + crc32(request_id.encode()) % 256 / 1024
        return max(late_s, SHORTEST_RETRY_S) * spread
