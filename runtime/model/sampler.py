"""From a plan's draws to what the kernels' sampler is asked. Owns the translation alone."""

from collections.abc import Iterator

from tenantry.kernels.sampling.spec import DrawSpec
from tenantry.runtime.messages import Sampling
from tenantry.runtime.plan import Draw, Row, after
from tenantry.runtime.speculative.tree import path

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
