"""PEFT's adapter_config.json as a closed struct of ours, and its meaning: which modules, what rank, what scale.

Every field is understood, inert by allow-list, or refused by name unless it has the value that changes nothing.
The file is never handed to PEFT. Matching follows PEFT 0.21: tuners_utils.check_target_module_exists,
utils.other.get_pattern_key, LoraModel._create_and_replace. Patterns are the uploader's regular expressions: their
length is bounded here, their time only by the validator's process.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tenantry.adapters.errors import AdapterError, Code, Findings
from tenantry.adapters.manifest import MODULES, PARENT, BaseSpec, Limits
from tenantry.adapters.strict_json import InvalidJson, parse_object

FILE = "adapter_config.json"
_DEFAULT_TARGETS = ("q_proj", "v_proj")  # PEFT's own for all four families
_MAX_PATTERN = 512
_MAX_ALPHA = 1e6
_TRAINED_ON_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


class PeftConfig(msgspec.Struct, frozen=True):
    """The fields that decide what an adapter does."""

    peft_type: str
    r: int
    lora_alpha: int | float = 8
    use_rslora: bool = False
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, int | float] | None = None
    init_lora_weights: bool | str = True
    task_type: str | None = None
    fan_in_fan_out: bool = False


INERT: dict[str, Any] = {
    "base_model_name_or_path": str | None,
    "revision": str | None,
    "peft_version": str | None,
    "inference_mode": bool,
    "lora_dropout": int | float,
    "qalora_group_size": int,
    "eva_config": dict[str, Any] | None,  # how A was initialised before training
    "runtime_config": dict[str, Any] | None,
}

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "bias": ("none",),
    "lora_bias": (False, None),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None,),
    "layer_replication": (None,),
    "megatron_config": (None,),
    "megatron_core": ("megatron.core", None),
    "auto_mapping": (None,),
    "loftq_config": (None, {}),
    "corda_config": (None,),
    "lora_ga_config": (None,),
    "arrow_config": (None,),
    "velora_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "use_bdlora": (None, False),
    "use_qalora": (False, None),
    "ensure_weight_tying": (False, None),
    "enable_lora": (None,),
    "merge_weights": (False, None),
}
"""Fields that would change the arithmetic, and the values with which they do not."""

_FIELDS = {f.name: f for f in msgspec.structs.fields(PeftConfig)}
_AUTO_MAPPING_KEYS = {"base_model_class", "parent_library"}


def parse_config(raw: bytes, limits: Limits, findings: Findings) -> PeftConfig | None:
    """None when it cannot be understood; all that is wrong with it goes to findings."""
    if len(raw) > limits.max_config_bytes:
        findings.problem(Code.TOO_LARGE, FILE, f"more than {limits.max_config_bytes} bytes")
        return None
    try:
        document = parse_object(raw)
    except InvalidJson as error:
        findings.problem(Code.CONFIG_INVALID, FILE, str(error))
        return None
    values = {key: value for key, value in document.items() if _accept(key, value, findings)}
    for name, stand_in in (("peft_type", "LORA"), ("r", 1)):
        if name not in document:
            findings.problem(Code.CONFIG_INVALID, name, "is required")
        values.setdefault(name, stand_in)
    config = PeftConfig(**values)
    _check(config, limits, findings)
    return None if any(p.code == Code.CONFIG_INVALID for p in findings.problems) else config


def _accept(key: str, value: Any, findings: Findings) -> bool:
    """Whether the field belongs in PeftConfig; reports it otherwise, unless it changes nothing."""
    if key in NEUTRAL:
        if not _is_neutral(key, value):
            findings.problem(Code.FEATURE_UNSUPPORTED, key, "is not supported")
        return False
    kind = _FIELDS[key].type if key in _FIELDS else INERT.get(key)
    if kind is None:
        findings.problem(Code.CONFIG_INVALID, key, "is not a field of a LoRA configuration")
        return False
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        findings.problem(Code.CONFIG_INVALID, key, str(error))
        return False
    return key in _FIELDS


def _is_neutral(key: str, value: Any) -> bool:
    if any(type(value) is type(allowed) and value == allowed for allowed in NEUTRAL[key]):
        return True
    if key != "auto_mapping" or not isinstance(value, dict) or value.keys() != _AUTO_MAPPING_KEYS:
        return False
    # What PEFT notes by itself when no task type was given. It is never imported.
    library = str(value["parent_library"])
    return bool(re.fullmatch(r"transformers\.models\.(\w+)\.modeling_\1", library)) and str(
        value["base_model_class"]
    ).endswith("ForCausalLM")


def _check(config: PeftConfig, limits: Limits, findings: Findings) -> None:
    def wrong(field: str, message: str, code: Code = Code.CONFIG_INVALID) -> None:
        findings.problem(code, field, message)

    if config.peft_type != "LORA":
        wrong("peft_type", "only LORA is supported", Code.FEATURE_UNSUPPORTED)
    if config.task_type not in (None, "CAUSAL_LM"):
        wrong("task_type", "only CAUSAL_LM is supported", Code.FEATURE_UNSUPPORTED)
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights.startswith(_TRAINED_ON_CHANGED_BASE):
        wrong("init_lora_weights", "the adapter was trained on a changed base model; convert it when saving",
              Code.FEATURE_UNSUPPORTED)  # fmt: skip
    elif config.init_lora_weights not in (True, False, "gaussian", "eva", "orthogonal"):
        wrong("init_lora_weights", "is not a known initialisation", Code.FEATURE_UNSUPPORTED)
    for rank in (config.r, *(config.rank_pattern or {}).values()):
        if not 1 <= rank <= limits.max_rank:
            wrong("r" if rank == config.r else "rank_pattern", f"a rank must be 1 to {limits.max_rank}")
    for alpha in (config.lora_alpha, *(config.alpha_pattern or {}).values()):
        if not 0 < alpha <= _MAX_ALPHA:
            wrong("lora_alpha" if alpha == config.lora_alpha else "alpha_pattern", f"must be in (0, {_MAX_ALPHA:g}]")
    if isinstance(config.target_modules, str) and config.layers_to_transform is not None:
        wrong("layers_to_transform", "cannot be used when target_modules is a string")
    if config.layers_pattern and config.layers_to_transform is None:
        wrong("layers_pattern", "needs layers_to_transform")
    if config.fan_in_fan_out:
        findings.warning(Code.NO_EFFECT, "fan_in_fan_out", "has no meaning for the linear layers of this base model")


@dataclass(frozen=True, slots=True)
class Target:
    rank: int
    scale: float


def resolve(config: PeftConfig, base: BaseSpec, limits: Limits, findings: Findings) -> dict[tuple[int, str], Target]:
    """Rank and scale of every (layer, module) that the configuration adapts, exactly as PEFT would build it."""
    names = {f"model.layers.{i}.{PARENT[m]}.{m}": (i, m) for i in range(base.layers) for m in MODULES}
    try:
        targeted = _targeting(config)
        ranks = _Patterns("rank_pattern", config.rank_pattern or {})
        alphas = _Patterns("alpha_pattern", config.alpha_pattern or {})
    except _BadPattern as error:
        findings.problem(Code.CONFIG_INVALID, error.field, str(error))
        return {}
    for name in ("model.embed_tokens", "lm_head"):
        if targeted(name):
            findings.problem(Code.FEATURE_UNSUPPORTED, name, "an adapter of the embeddings is not supported")
    targets = {}
    for name, place in names.items():
        if not targeted(name):
            continue
        rank, alpha = ranks.find(name, config.r), alphas.find(name, config.lora_alpha)
        scale = alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
        if not 0 < scale <= limits.max_scale:
            findings.problem(Code.CONFIG_INVALID, "lora_alpha", f"a scale must be in (0, {limits.max_scale:g}]")
        targets[place] = Target(int(rank), scale)
    if not targets:
        findings.problem(Code.BASE_MISMATCH, "target_modules", "matches no module of the base model")
    _warn_of_the_unmatched(config, names, (("rank_pattern", ranks), ("alpha_pattern", alphas)), findings)
    layers = config.layers_to_transform
    if any(not 0 <= i < base.layers for i in (layers if isinstance(layers, list) else [layers or 0])):
        findings.problem(Code.BASE_MISMATCH, "layers_to_transform", f"the base model has {base.layers} layers")
    return targets


class _BadPattern(AdapterError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _compile(field: str, pattern: str) -> re.Pattern[str]:
    if len(pattern) > _MAX_PATTERN:
        raise _BadPattern(field, f"a pattern has at most {_MAX_PATTERN} characters")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        raise _BadPattern(field, "is not a regular expression") from None


class _Patterns:
    """rank_pattern or alpha_pattern: the first key that matches the end of a module's name gives the value."""

    def __init__(self, field: str, patterns: dict[str, Any]) -> None:
        self._patterns = [(_compile(field, rf"(.*\.)?({k})$"), v) for k, v in patterns.items()]
        self.unused = set(patterns)
        self.ambiguous = False  # PEFT sorts keys on saving, so which came first in training is lost
        self._keys = list(patterns)

    def find(self, name: str, default: Any) -> Any:
        matching = [i for i, (pattern, _) in enumerate(self._patterns) if pattern.match(name)]
        self.unused.difference_update(self._keys[i] for i in matching)
        values = [self._patterns[i][1] for i in matching]
        self.ambiguous |= len(set(values)) > 1
        return values[0] if values else default


def _ends_with(names: Iterable[str]) -> Callable[[str], bool]:
    exact, endings = frozenset(names), tuple(f".{n}" for n in names)
    return lambda name: name in exact or name.endswith(endings)


def _targeting(config: PeftConfig) -> Callable[[str], bool]:
    excluded = _matching("exclude_modules", config.exclude_modules or [])
    wanted = _DEFAULT_TARGETS if config.target_modules is None else config.target_modules
    if isinstance(wanted, str) and wanted.lower() == "all-linear":
        return lambda name: name.startswith("model.layers.") and not excluded(name)
    matches, in_layers = _matching("target_modules", wanted), _in_layers(config)
    named = frozenset(wanted) if not isinstance(wanted, str) else frozenset()
    return lambda name: not excluded(name) and matches(name) and (name in named or in_layers(name))


def _matching(field: str, wanted: Iterable[str] | str) -> Callable[[str], bool]:
    if isinstance(wanted, str):
        pattern = _compile(field, wanted)
        return lambda name: pattern.fullmatch(name) is not None
    return _ends_with(list(wanted))


def _in_layers(config: PeftConfig) -> Callable[[str], bool]:
    layers = config.layers_to_transform
    wanted = frozenset([layers] if isinstance(layers, int) else layers or ())
    if layers is None or layers == []:
        return lambda name: True
    containers = [config.layers_pattern] if isinstance(config.layers_pattern, str) else config.layers_pattern
    sources = [rf"(?:^|.*?\.){c}\.(?P<idx>\d+)\." for c in containers or () if c] or [r".*?\.[^.]*\.(?P<idx>\d+)\."]
    patterns = [_compile("layers_pattern", source) for source in sources]

    def inside(name: str) -> bool:
        match = next((m for p in patterns if (m := p.match(name))), None)
        return match is not None and match["idx"] is not None and int(match["idx"]) in wanted

    return inside


def _warn_of_the_unmatched(
    config: PeftConfig, names: Iterable[str], patterns: Iterable[tuple[str, _Patterns]], findings: Findings
) -> None:
    for field, used in patterns:
        for key in used.unused:
            findings.warning(Code.NO_EFFECT, field, f"{key[:80]!r} matches no adapted module")
        if used.ambiguous:
            findings.warning(Code.AMBIGUOUS, field, "several keys match one module; the first in the file counts")
    if isinstance(config.target_modules, list):
        for wanted in config.target_modules:
            matches = _ends_with([wanted])
            if not any(map(matches, (*names, "lm_head", "model.embed_tokens"))):
                findings.warning(Code.NO_EFFECT, "target_modules", f"{wanted[:80]!r} matches no module")
