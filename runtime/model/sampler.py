"""From a plan's draws to the kernels' sampler and back. Owns the translation and a row's fault, nothing else."""

from collections.abc import Sequence

from torch import Tensor

from tenantry.kernels.ops import Ops
from tenantry.kernels.sampling.spec import DrawLogprobs, DrawSpec
from tenantry.runtime.messages import Sampling, TokenLogprob
from tenantry.runtime.plan import Draw, RowResult

NOT_FINITE = "the model's numbers overflowed in this sequence"
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
    return bool(s.logit_bias) or (s.presence_penalty, s.frequency_penalty, s.repetition_penalty) != (0, 0, 1)


def draw_tokens(ops: Ops, logits: Tensor, draws: Sequence[Draw]) -> list[RowResult]:
    """logits: fp32 [len(draws), vocab]. One result per draw; a faulty one has no tokens."""
    if not draws:
        return []
    drawn = ops.sample(logits, [spec_of(draw) for draw in draws])
    return [
        RowResult(fault=NOTHING_ALLOWED) if faulty else RowResult((token,), _logprobs(token, logprob))
        for token, logprob, faulty in zip(drawn.ids, drawn.logprobs, drawn.faulty, strict=True)
    ]


def _logprobs(token: int, found: DrawLogprobs | None) -> tuple[TokenLogprob, ...] | None:
    return None if found is None else (TokenLogprob(token, found.logprob, found.top),)
