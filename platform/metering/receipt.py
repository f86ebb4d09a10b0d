"""The bytes that ride along with a request into the engine's journal, so that it can be billed if its row is lost.

Owns their encoding. Opaque to the runtime; holds ids only, never prompt text or keys.
"""

from datetime import datetime
from uuid import UUID

import msgspec


class Receipt(msgspec.Struct, frozen=True, array_like=True, tag="r1"):
    """Who asked for what, at which price. adapter ids are None for the base model."""

    tenant_id: UUID
    key_id: UUID
    base_model_id: UUID
    adapter_id: UUID | None
    adapter_version_id: UUID | None
    model: str
    price_id: UUID
    admitted_at: datetime


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(Receipt)


def encode(receipt: Receipt) -> bytes:
    return _encoder.encode(receipt)


def decode(data: bytes) -> Receipt:
    """Raises msgspec.DecodeError on bytes that are not a receipt."""
    return _decoder.decode(data)
