"""How much of a prompt one step may take: what an inter-token-latency target leaves beside the rows that decode, and
what leaves room for others where several tenants are about.

Owns the division of a step's time between those who decode and those who come. The step-time model says what a token
costs; nothing is fixed here in seconds. It must not know whose prompts they are.
"""

from math import sqrt

from tenantry.runtime.scheduler.steptime import StepTimeModel, looked_at

WORST = 2.0  # times what was expected, beyond which the target is not cut further: half of it is left
COMPANY = 2.0  # times what decoding rows take, that prompts may take beside them while several tenants are about
UNLEARNED = 0.25  # of the token budget goes to prompts until it is known what they cost
KILO = 1000.0


class Allowance:
    """Seconds that prompts may take in one step: for each token, for each position in its row, and for each that a
    token looks at; or for a row that has one token left. What they take of it is `spend`."""

    def __init__(
        self, seconds: float, token: float, position: float = 0.0, pair: float = 0.0, row: float = 0.0
    ) -> None:
        self._left, self._token, self._position, self._pair, self._row = seconds, token, position, pair, row

    def tokens(self, start: int) -> int:
        """Tokens of a prompt that fit, behind `start` computed ones."""
        left = self._left - self._position * start
        if left <= 0:
            return 0
        linear = self._token + self._position + self._pair * (start + 0.5)
        if self._pair > 0:  # linear n + pair n^2 / 2 = left
            return int((sqrt(linear * linear + 2 * self._pair * left) - linear) / self._pair)
        return int(left / linear) if linear > 0 else 1 << 30

    def spend(self, start: int, count: int) -> None:
        self._left -= self._position * (start + count)
        self._left -= self._row if count == 1 else self._token * count + self._pair * looked_at(start, count)

    def takes_row(self, start: int) -> bool:
        """Whether one token more fits, behind `start` computed ones."""
        return self._left >= self._row + self._position * (start + 1)


class Pace:
    """target_s: what a step with decoding rows should take at most, or 0. budget: tokens of any step.

    Steps are made for less than the target, by how late they were lately: it is a bound for nearly all steps, not for
    their mean. Without a target a tenant's prompts still leave the next step soon to whoever else
    may come: its own others gain nothing from one long step, since they wait for the same machine either way."""

    def __init__(self, target_s: float, budget: int, times: StepTimeModel) -> None:
        self._target_s, self._budget, self._times = target_s, budget, times

    @property
    def aim(self) -> float:
        """Seconds that a step may be expected to take."""
        return self._target_s / min(self._times.late, WORST)

    def allowance(self, rows: int, nodes: int, attended: int, company: bool = False) -> Allowance | None:
        """For prompts beside so many rows that draw, which judge `nodes` guesses and hold `attended` positions; None
        where nothing but the token budget bounds them. company: several tenants are about."""
        if not rows or not (self._target_s or company):
            return None
        if not self._times.learned:
            return Allowance(UNLEARNED * self._budget, 1.0) if self._target_s else None
        known = self._times.report()
        decoding = self._times.seconds(rows, nodes, attended=attended)
        seconds = self.aim - decoding if self._target_s else COMPANY * decoding
        position, pair = known.kilo_attended / KILO, known.kilo_prompt_attended / KILO
        return Allowance(seconds, known.prompt_token, position, pair, known.row)

    def guesses(self, rows: int, attended: int) -> int:
        """Most guesses that may be judged beside so many rows."""
        if not self._target_s or not self._times.learned:
            return self._budget
        spare = self.aim - self._times.seconds(rows, 1, attended=attended)
        if spare < 0:
            return 0
        each = self._times.report().guess
        return min(self._budget, 1 + int(spare / each)) if each > 0 else self._budget
