"""What a chart of usage is: its shape as asked for, and its points. Owns no statement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.platform.metering.rollups import Sums

SeriesBy = Literal["adapter", "version", "key", "total"]
Bucket = Literal["hour", "day"]
Measure = Literal["cost", "tokens"]


@dataclass(frozen=True, slots=True)
class Point(Sums):
    """One group in one bucket. id and label are None in total, and where `rest`: all groups beyond the dearest.
    The base model alone has a label and no id."""

    at: datetime
    id: UUID | None
    label: str | None
    rest: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked for. groups: how many are told apart, by cost or by tokens."""

    by: SeriesBy = "adapter"
    bucket: Bucket = "hour"
    measure: Measure = "cost"
    groups: int = 8
