"""What the API says and hears about usage, prices and wallets. Money is decimal text, tokens are whole numbers."""

from datetime import datetime
from typing import Literal

import msgspec

from tenantry.platform.core import ids, money
from tenantry.platform.core.paging import Page
from tenantry.platform.metering.chart import Bucket, Point, SeriesBy
from tenantry.platform.metering.headroom import Headroom
from tenantry.platform.metering.prices import Dated
from tenantry.platform.metering.pricing import Price
from tenantry.platform.metering.usage import GroupBy, UsageEvent, UsageSum
from tenantry.platform.metering.wallet import WalletEntry


class UsageRow(msgspec.Struct, frozen=True):
    """id and label name the group (an adapter's null id is the base model itself); hour is its start. Of the drafted
    tokens, guesses that were computed, the accepted ones are completion tokens too; the others were rejected."""

    id: str | None
    label: str | None
    hour: datetime | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    rejected_tokens: int
    cost: str

    @classmethod
    def of(cls, by: GroupBy, row: UsageSum) -> "UsageRow":
        kinds: dict[str, ids.Kind] = {"adapter": "adapter", "key": "key", "model": "base"}
        named = by in kinds and not (by == "adapter" and row.base)
        return cls(
            id=ids.to_text(kinds[by], row.id) if named else None,
            label=row.label,
            hour=row.hour,
            requests=row.requests,
            prompt_tokens=row.prompt,
            cached_tokens=row.cached,
            completion_tokens=row.completion,
            drafted_tokens=row.drafted,
            accepted_tokens=row.accepted,
            rejected_tokens=row.drafted - row.accepted,
            cost=money.render(row.nano),
        )


class UsageReport(Page, frozen=True, kw_only=True):
    group_by: GroupBy
    data: list[UsageRow]


class UsageEventView(msgspec.Struct, frozen=True):
    """model: what was asked for. key_name, adapter_name and version_number are those of the ids."""

    request_id: str
    key: str
    adapter: str | None
    version: str | None
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    rejected_tokens: int
    cost: str
    outcome: str
    admitted_at: datetime
    occurred_at: datetime
    key_name: str | None
    adapter_name: str | None
    version_number: int | None
    object: Literal["usage_event"] = "usage_event"

    @classmethod
    def of(cls, event: UsageEvent) -> "UsageEventView":
        return cls(
            request_id=ids.to_text("request", event.request_id),
            key=ids.to_text("key", event.key_id),
            adapter=ids.to_text("adapter", event.adapter_id) if event.adapter_id else None,
            version=ids.to_text("version", event.adapter_version_id) if event.adapter_version_id else None,
            model=event.model,
            prompt_tokens=event.prompt,
            cached_tokens=event.cached,
            completion_tokens=event.completion,
            drafted_tokens=event.drafted,
            accepted_tokens=event.accepted,
            rejected_tokens=event.drafted - event.accepted,
            cost=money.render(event.nano),
            outcome=event.outcome,
            admitted_at=event.admitted_at,
            occurred_at=event.occurred_at,
            key_name=event.key_name,
            adapter_name=event.adapter_name,
            version_number=event.version_number,
        )


class UsageEventPage(Page, frozen=True, kw_only=True):
    data: list[UsageEventView]


class SeriesPoint(msgspec.Struct, frozen=True):
    """One group in one bucket. id and label are null in total, and where rest: all groups beyond the dearest.
    The base model alone has a label and no id."""

    at: datetime
    id: str | None
    label: str | None
    rest: bool
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    cost: str

    @classmethod
    def of(cls, by: SeriesBy, point: Point) -> "SeriesPoint":
        kinds: dict[str, ids.Kind] = {"adapter": "adapter", "version": "version", "key": "key"}
        name = ids.to_text(kinds[by], point.id) if point.id is not None and by in kinds else None
        return cls(
            at=point.at, id=name, label=point.label, rest=point.rest, requests=point.requests,
            prompt_tokens=point.prompt, cached_tokens=point.cached, completion_tokens=point.completion,
            drafted_tokens=point.drafted, accepted_tokens=point.accepted, cost=money.render(point.nano),
        )  # fmt: skip


class UsageSeries(msgspec.Struct, frozen=True):
    group_by: SeriesBy
    bucket: Bucket
    data: list[SeriesPoint]
    object: Literal["list"] = "list"


class HeadroomView(msgspec.Struct, frozen=True):
    """Limits and what is left of them: of the tenant (key is null), or of one key with limits of its own. null is
    unlimited. spent counts in the budget's period; reserved is held for requests under way."""

    key: str | None
    name: str | None
    concurrency: int | None
    running: int
    requests_per_minute: int | None
    requests_left: int | None
    budget: str | None
    budget_period: str
    spent: str
    reserved: str
    spent_this_month: str
    object: Literal["headroom"] = "headroom"

    @classmethod
    def of(cls, room: Headroom) -> "HeadroomView":
        return cls(
            key=ids.to_text("key", room.id) if room.name is not None else None,
            name=room.name,
            concurrency=room.concurrency,
            running=room.running,
            requests_per_minute=room.requests_per_minute,
            requests_left=room.requests_left,
            budget=money.render(room.budget_nano) if room.budget_nano is not None else None,
            budget_period=room.budget_period,
            spent=money.render(room.spent_nano),
            reserved=money.render(room.reserved_nano),
            spent_this_month=money.render(room.month_nano),
        )


class HeadroomPage(Page, frozen=True, kw_only=True):
    data: list[HeadroomView]


class PriceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Decimal text per token; at most nine decimals. rejected: of a guess that was computed and fell."""

    prompt: str
    completion: str
    cached: str
    rejected: str = "0"
    effective_from: datetime | None = None


class PriceView(msgspec.Struct, frozen=True):
    id: str
    prompt: str
    cached: str
    completion: str
    rejected: str
    object: Literal["price"] = "price"

    @classmethod
    def of(cls, price: Price) -> "PriceView":
        return cls(
            ids.to_text("price", price.id),
            money.render(price.prompt_nano),
            money.render(price.cached_nano),
            money.render(price.completion_nano),
            money.render(price.rejected_nano),
        )


class DatedPrice(msgspec.Struct, frozen=True):
    id: str
    prompt: str
    cached: str
    completion: str
    rejected: str
    effective_from: datetime
    object: Literal["dated_price"] = "dated_price"

    @classmethod
    def of(cls, dated: Dated) -> "DatedPrice":
        view = PriceView.of(dated.price)
        return cls(view.id, view.prompt, view.cached, view.completion, view.rejected, dated.effective_from)


class PricePage(Page, frozen=True, kw_only=True):
    data: list[DatedPrice]


class WalletEnter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["grant", "adjust"]
    amount: str
    note: str = ""


class WalletEntryView(msgspec.Struct, frozen=True):
    seq: int
    kind: str
    amount: str
    balance_after: str
    request_id: str | None
    note: str
    at: datetime
    object: Literal["wallet_entry"] = "wallet_entry"

    @classmethod
    def of(cls, entry: WalletEntry) -> "WalletEntryView":
        request = ids.to_text("request", entry.request_id) if entry.request_id else None
        return cls(
            entry.seq, entry.kind, money.render(entry.nano), money.render(entry.balance_after), request, entry.note,
            entry.at,
        )  # fmt: skip


class WalletPage(Page, frozen=True, kw_only=True):
    balance: str
    data: list[WalletEntryView]
