"""A request that two engines had is owed once: what the last of them counted, wherever and whenever it is read."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tenantry.platform.metering import receipt
from tenantry.platform.metering.journal import Journal
from tenantry.platform.metering.receipt import Receipt
from tenantry.runtime.journal import Closed, Counted, JournalWriter, Opened, read_counters, seal
from tenantry.runtime.messages import Usage

FIRST, SECOND = Usage(10, 8, 3), Usage(10, 0, 40)


def a_receipt() -> bytes:
    now = datetime.now(UTC)
    return receipt.encode(Receipt(uuid4(), uuid4(), uuid4(), None, None, "base", uuid4(), now))


@pytest.fixture
def request_id() -> str:
    return str(uuid4())


def dead(directory: Path, request_id: str, usage: Usage, attempt: int, epoch: str = "a1") -> None:
    """An engine that died with the request open: a later life of it wrote one segment more."""
    writer = JournalWriter(directory, epoch)
    writer.append([Opened(request_id, a_receipt(), attempt), Counted({request_id: usage})])
    writer.close()
    assert seal(directory, epoch + "z")


def entry(directory: Path, request_id: str):
    return Journal(directory).read()[UUID(request_id)]


@pytest.mark.parametrize("names", [("engine-0", "engine-1"), ("engine-1", "engine-0")], ids=["first", "last"])
def test_the_last_attempt_is_what_is_owed_whichever_directory_is_read_first(tmp_path, request_id, names):
    dead(tmp_path / names[0], request_id, FIRST, attempt=0)
    assert (entry(tmp_path, request_id).usage, entry(tmp_path, request_id).final) == (FIRST, True)
    second = JournalWriter(tmp_path / names[1], "a0")  # an engine that is older than the one that died
    second.append([Opened(request_id, a_receipt(), 1)])
    assert (entry(tmp_path, request_id).usage, entry(tmp_path, request_id).final) == (Usage(), False)
    second.append([Closed(request_id, SECOND, "length")])
    second.close()
    assert (entry(tmp_path, request_id).usage, entry(tmp_path, request_id).final) == (SECOND, True)


def test_an_engine_that_comes_back_and_gets_it_again_begins_from_nothing(tmp_path, request_id):
    dead(tmp_path, request_id, FIRST, attempt=0)
    again = JournalWriter(tmp_path, "b1")
    again.append([Opened(request_id, a_receipt(), 1), Closed(request_id, SECOND, "stop")])
    again.close()
    found = read_counters(tmp_path)[request_id]
    assert (found.usage, found.attempt, found.epoch) == (SECOND, 1, "b1")


def test_a_settled_request_is_forgotten_in_every_directory(tmp_path, request_id):
    dead(tmp_path / "engine-0", request_id, FIRST, attempt=0)
    dead(tmp_path / "engine-1", request_id, SECOND, attempt=1)
    journal = Journal(tmp_path, keep_s=0)
    assert list(journal.read()) == [UUID(request_id)]
    journal.forget([UUID(request_id)])
    assert journal.read() == {}
    assert Journal(tmp_path).read() == {}, "nothing but its segments was there"


def test_sealing_waits_for_the_last_writer(tmp_path):
    writer = JournalWriter(tmp_path, "a1")
    assert not seal(tmp_path, "a2")
    writer.close()
    assert seal(tmp_path, "a2")
