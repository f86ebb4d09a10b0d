"""What can be wrong with an adapter, as data and as one exception tree.

A Problem is a finding about an upload and is reported beside all the others; an AdapterError is raised where
no report can be made. Neither carries a path, a class name or a byte of the upload beyond a clipped name.

AdapterError
├── BaseUnsupported      the base model's config names a family or a shape this room cannot describe
├── BlobMissing          no canonical blob of that digest in the store
├── BlobCorrupt          a canonical blob whose bytes do not agree with its header or its name
└── ResidencyError       the owner of the residency machine broke its protocol (a bug of ours)
"""

from enum import StrEnum

import msgspec


class Code(StrEnum):
    """Stable, machine-readable kinds of problem."""

    ARCHIVE_PATH = "archive_path"
    ARCHIVE_INVALID = "archive_invalid"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    FILE_MISSING = "file_missing"
    TOO_LARGE = "too_large"
    CONFIG_INVALID = "config_invalid"
    FEATURE_UNSUPPORTED = "feature_unsupported"
    SAFETENSORS_HEADER = "safetensors_header"
    DTYPE_UNSUPPORTED = "dtype_unsupported"
    UNKNOWN_MODULE = "unknown_module"
    TENSOR_MISSING = "tensor_missing"
    RANK_MISMATCH = "rank_mismatch"
    BASE_MISMATCH = "base_mismatch"
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    NO_EFFECT = "no_effect"
    AMBIGUOUS = "ambiguous"
    LIMIT_EXCEEDED = "limit_exceeded"
    MORE = "more"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One finding. subject: the tensor, config field or file at fault, clipped; empty when it is the whole."""

    code: Code
    subject: str
    message: str


class Findings:
    """Collects problems and warnings of one upload, whatever raised them, for one sorted and bounded report."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, code: Code, subject: str, message: str) -> None:
        self.problems.append(Problem(code, clip(subject), message))

    def warning(self, code: Code, subject: str, message: str) -> None:
        self.warnings.append(Problem(code, clip(subject), message))


def bounded(found: list[Problem], most: int) -> tuple[Problem, ...]:
    """Sorted, without repetition, and closed by a count of what does not fit."""
    ordered = sorted(set(found))
    if len(ordered) <= most:
        return tuple(ordered)
    return (*ordered[:most], Problem(Code.MORE, "", f"and {len(ordered) - most} more"))


SUBJECT_CHARS = 200


def clip(text: str) -> str:
    """A name from an upload, printable and short enough to be repeated to its owner."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: SUBJECT_CHARS + 1])
    return shown if len(shown) <= SUBJECT_CHARS else shown[: SUBJECT_CHARS - 1] + "…"


class AdapterError(Exception):
    """Every exception of this room."""


class BaseUnsupported(AdapterError):
    pass


class BlobMissing(AdapterError):
    pass


class BlobCorrupt(AdapterError):
    pass


class ResidencyError(AdapterError):
    pass
