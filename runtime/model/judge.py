"""A step's verdicts: what is drawn after every row and every node of its draft, and which guesses stand by that.

Owns the three ways of judging, of which an engine has one, and what stochastic drafts were drawn from until they come
back. The verdicts themselves are pure functions (speculative/verify.py); penalties, bias, forbidden ids and filters
are applied along each node's path before anything is compared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.ops import Ops
from tenantry.kernels.sampling.drawn import Drawn
from tenantry.kernels.sampling.logits import logprobs_of
from tenantry.kernels.sampling.noise import key, stream, uniform
from tenantry.kernels.sampling.reference import distribution
from tenantry.kernels.sampling.spec import DrawSpec, SampleResult
from tenantry.runtime.messages import TokenLogprob
from tenantry.runtime.model.batch import row_lengths
from tenantry.runtime.model.decoder import Output
from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.model.sampler import draws_of, spec_of
from tenantry.runtime.plan import Row, RowResult
from tenantry.runtime.speculative.tree import ROOT, DraftTree, path, walk
from tenantry.runtime.speculative.verify import Floats, Verdict, Verify, match, odds, reject, typical

NOT_FINITE = "the model's numbers overflowed in this sequence"
NOTHING_ALLOWED = "no token may be drawn: the logits are not finite, or every token is forbidden"
NO_DRAFT = DraftTree((), ())
QUESTIONS = 1  # the stream of noise that rejection sampling asks


class Asked(NamedTuple):
    """A step's draws on their way. logits: fp32 [draws of all rows, vocab]. specs: of each draw."""

    rows: Sequence[Row]
    logits: Tensor
    specs: Sequence[DrawSpec]
    drawn: Drawn


class Judge:
    """verify: "sample" draws with each position's own noise, and a guess stands when it is what was drawn: a seed has
    one text, whatever was guessed. "reject" (rejection sampling) keeps the distribution, not the text, and lets more
    stand of drafts with a q; others, and greedy rows, are judged as by "sample". "typical" lets stand whatever is
    plausible: lossy."""

    def __init__(self, ops: Ops, verify: Verify = "sample") -> None:
        self._ops = ops
        self._verify = verify
        self._proposed: dict[int, Proposal] = {}

    def remember(self, rows: Sequence[Row], proposals: Sequence[Proposal | None]) -> None:
        """What the proposer answered in this step, aligned with its rows: some of it comes back in the next one."""
        self._proposed = {
            row.sequence: proposal
            for row, proposal in zip(rows, proposals, strict=True)
            if proposal is not None and proposal.q is not None
        }

    def ask(self, rows: Sequence[Row], output: Output) -> Asked:
        """Queue a step's draws; the host may do something else before it asks for the verdicts."""
        specs = [spec_of(draw) for row in rows for draw in draws_of(row)]
        return Asked(rows, output.logits, specs, self._ops.draw(output.logits, specs, output.finite))

    def judge(self, asked: Asked) -> list[RowResult]:
        """One result per row: of rows that draw nothing too. Waits for the device."""
        rows, finite = asked.rows, asked.drawn.beside()
        drawn = iter(self._verdicts(asked))
        results = [RowResult() if row.draw is None else next(drawn) for row in rows]
        if not finite.all():
            for i, (row, fine) in enumerate(zip(rows, torch.split(finite, row_lengths(rows)), strict=True)):
                if not fine[: len(row.tokens)].all():  # a guess that overflows is no fault: it does not stand
                    results[i] = RowResult(fault=NOT_FINITE)
        return results

    def _verdicts(self, asked: Asked) -> list[RowResult]:
        """Of the rows that draw."""
        logits, specs, drawn = asked.logits, asked.specs, asked.drawn.result()
        results, at = [], 0
        for row in asked.rows:
            if row.draw is None:
                continue
            past = at + 1 + len((row.draft or NO_DRAFT).tokens)
            results.append(self._row(row, logits[at:past], specs[at:past], _part(drawn, at, past)))
            at = past
        return results

    def _row(self, row: Row, logits: Tensor, specs: Sequence[DrawSpec], drawn: SampleResult) -> RowResult:
        """logits, specs, drawn: of the row's last token and of each node of its draft."""
        if drawn.faulty[0]:
            return RowResult(fault=NOTHING_ALLOWED)
        draft = row.draft or NO_DRAFT
        if self._verify != "sample" and draft.tokens and specs[0].temperature > 0 and not any(drawn.faulty):
            raw = logits.cpu().numpy()
            verdict = self._by_chance(row, draft, raw, specs, drawn.ids)
            if verdict is not None:
                return _result(verdict, _logprobs(verdict, raw, specs))
        verdict = match(draft, drawn.ids)
        entries = [drawn.logprobs[node + 1] for node in (ROOT, *verdict.accepted)]
        known = [
            TokenLogprob(token, entry.logprob, entry.top)
            for token, entry in zip(verdict.tokens, entries, strict=True)
            if entry is not None
        ]
        return _result(verdict, known)

    def _by_chance(
        self, row: Row, draft: DraftTree, raw: NDArray[np.float32], specs: Sequence[DrawSpec], drawn: Sequence[int]
    ) -> Verdict | None:
        """A verdict on the target's distributions; None where sampling has to say, since nobody knows what the draft
        was drawn from."""
        if self._verify == "typical":
            return typical(draft, _distributions(raw, specs), drawn)
        proposal = self._proposed.get(row.sequence)
        q = drawn_from(proposal, draft) if proposal is not None else None
        if q is None:
            return None
        spec = specs[0]
        noise = uniform(stream(key(spec.seed, spec.choice, spec.position), QUESTIONS), np.arange(len(specs) + 1))
        return reject(draft, odds(draft, _distributions(raw, specs), q), lambda question: float(noise[question]))


def drawn_from(proposal: Proposal, draft: DraftTree) -> Floats | None:
    """q of a draft that is a part of what was proposed: [nodes + 1, V]; None for any other draft."""
    if proposal.q is None or proposal.tree.kind != draft.kind:
        return None
    places = [0]
    for node in range(len(draft.tokens)):
        tokens = [draft.tokens[n] for n in path(draft, node)]
        found = walk(proposal.tree, tokens)
        if len(found) < len(tokens):
            return None
        places.append(found[-1] + 1)
    return proposal.q[places].double().cpu().numpy()


def _distributions(raw: NDArray[np.float32], specs: Sequence[DrawSpec]) -> Floats:
    return np.stack([distribution(line, spec) for line, spec in zip(raw, specs, strict=True)])


def _logprobs(verdict: Verdict, raw: NDArray[np.float32], specs: Sequence[DrawSpec]) -> list[TokenLogprob]:
    count, found = specs[0].logprobs, []
    if count is None:
        return []
    for token, node in zip(verdict.tokens, (ROOT, *verdict.accepted), strict=True):
        entry = logprobs_of(raw[node + 1], token, count)
        found.append(TokenLogprob(token, entry.logprob, entry.top))
    return found


def _result(verdict: Verdict, logprobs: Sequence[TokenLogprob]) -> RowResult:
    """logprobs: of the tokens that could be drawn, or of none."""
    tokens = verdict.tokens
    if tokens[-1] < 0:  # nothing can be drawn after the last guess that stands: the next step says so
        tokens = tokens[:-1]
    known = tuple(logprobs) if len(logprobs) == len(tokens) else None
    return RowResult(tokens, known, accepted=len(verdict.accepted))


def _part(drawn: SampleResult, first: int, past: int) -> SampleResult:
    return SampleResult(drawn.ids[first:past], drawn.logprobs[first:past], drawn.faulty[first:past])
