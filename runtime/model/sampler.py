"""From a plan's draws to the kernels' sampler and back. Owns the translation, and a row's verdict or fault."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from tenantry.kernels.ops import Ops
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec, SampleResult
from tenantry.runtime.messages import Sampling, TokenLogprob
from tenantry.runtime.plan import Draw, Row, RowResult, after
from tenantry.runtime.speculative.tree import DraftTree, path
from tenantry.runtime.speculative.verify import match

NOT_FINITE = "the model's numbers overflowed in this sequence"
NO_DRAFT = DraftTree((), ())
NOTHING_ALLOWED = "no token may be drawn: the logits are not finite, or every token is forbidden"


GREEDY = DrawSpec(temperature=0.0)  # whatever the key: one for all rows that ask for nothing else


def spec_of(draw: Draw) -> DrawSpec:
    s = draw.sampling
    if s.temperature == 0 and s.logprobs is None and not draw.forbidden and not _adjusts(s):
        return GREEDY
    return DrawSpec(
        seed=s.seed,
        choice=draw.choice,
        position=draw.position,
        temperature=s.temperature,
        top_k=s.top_k,
        top_p=s.top_p,
        min_p=s.min_p,
        presence_penalty=s.presence_penalty,
        frequency_penalty=s.frequency_penalty,
        repetition_penalty=s.repetition_penalty,
        logit_bias=s.logit_bias,
        forbidden=draw.forbidden,
        history=draw.history,
        prompt_length=draw.prompt_length,
        logprobs=s.logprobs,
    )


def _adjusts(s: Sampling) -> bool:
    return bool(s.logit_bias) or penalises(s)


def draws_of(row: Row) -> Iterator[Draw]:
    """What is drawn in a row: after its last token, and after each node of its draft on the path to it."""
    draw, draft = row.draw, row.draft
    if draw is None:
        return
    yield draw
    if draft is None:
        return
    reads_text = penalises(draw.sampling)
    for node in range(len(draft.tokens)):
        yield after(draw, [draft.tokens[n] for n in path(draft, node)], reads_text)


def penalises(sampling: Sampling) -> bool:
    """Whether the text so far changes what is drawn next, beyond the model."""
    return bool(sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty)


def draw_rows(ops: Ops, logits: Tensor, rows: Sequence[Row]) -> list[RowResult]:
    """rows: those that draw. logits: fp32 [draws of all of them, vocab]. One result per row, guesses judged."""
    if not rows:
        return []
    drawn = ops.sample(logits, [spec_of(draw) for row in rows for draw in draws_of(row)])
    results, at = [], 0
    for row in rows:
        draft = row.draft or NO_DRAFT
        results.append(_judge(draft, drawn, at))
        at += 1 + len(draft.tokens)
    return results


def _judge(draft: DraftTree, drawn: SampleResult, at: int) -> RowResult:
    if drawn.faulty[at]:
        return RowResult(fault=NOTHING_ALLOWED)
    verdict = match(draft, drawn.ids[at : at + 1 + len(draft.tokens)])
    tokens, places = verdict.tokens, [at, *(at + 1 + node for node in verdict.accepted)]
    if tokens[-1] < 0:  # nothing can be drawn after the last guess that stands: the next step says so
        tokens = tokens[:-1]
    logprobs = [_logprob(token, drawn.logprobs[i]) for token, i in zip(tokens, places, strict=False)]
    known = tuple(entry for entry in logprobs if entry is not None)
    return RowResult(tokens, known if len(known) == len(tokens) else None, accepted=len(verdict.accepted))


def _logprob(token: int, found: DrawLogprobs | None) -> TokenLogprob | None:
    return None if found is None else TokenLogprob(token, found.logprob, found.top)
