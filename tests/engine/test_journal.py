"""The journal: torn tails, damage, rotation, tailing, a disk that refuses."""

import errno
import os
from pathlib import Path

import pytest

from tenantry.runtime import journal
from tenantry.runtime.errors import MeteringUnavailable
from tenantry.runtime.journal import (
    Closed,
    Counted,
    JournalEntry,
    JournalTail,
    JournalWriter,
    Opened,
    read_counters,
    remove_segment,
    segments,
)
from tenantry.runtime.messages import Usage


def life(n: int) -> list[journal.Record]:
    """One request from acceptance to its end, in five records."""
    r = f"r{n}"
    return [
        Opened(r, b"receipt-%d" % n),
        *(Counted({r: Usage(10, 4, k)}) for k in (1, 2, 3)),
        Closed(r, Usage(10, 4, 3), "stop"),
    ]


def written(directory: Path, records: list[journal.Record], epoch: str = "e1", **options: int) -> Path:
    writer = JournalWriter(directory, epoch, **options)
    for record in records:
        writer.append([record])
    writer.close()
    return segments(directory)[-1]


def test_last_record_wins_and_counters_never_fall(tmp_path: Path):
    later = [Opened("r2", b"x"), Counted({"r2": Usage(7, 0, 5)}), Counted({"r2": Usage(7, 0, 2)})]
    written(tmp_path, [*life(1), *later])
    assert read_counters(tmp_path) == {
        "r1": JournalEntry("r1", "e1", b"receipt-1", Usage(10, 4, 3), True, "stop"),
        "r2": JournalEntry("r2", "e1", b"x", Usage(7, 0, 5)),
    }


def test_a_tail_torn_at_any_byte_loses_only_the_torn_record(tmp_path: Path):
    path = written(tmp_path, life(1))
    whole = path.read_bytes()
    ends = []
    for record in life(1):
        frame = journal._frame(journal.msgspec.msgpack.encode(record))
        ends.append((ends[-1] if ends else 0) + len(frame))
    assert ends[-1] == len(whole)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        tail = JournalTail(tmp_path)
        tail.poll()
        sound = sum(end <= cut for end in ends)
        entry = tail.entries.get("r1")
        assert (entry is None) == (sound == 0)
        if entry is not None:
            assert entry.usage.completion == max(0, min(sound - 1, 3))
            assert not entry.closed
        assert tail.quarantined == 0
        path.write_bytes(whole)
        tail.poll()
        assert tail.entries["r1"].closed, "the writer went on: a tail that waited reads the rest"


def test_any_flipped_bit_costs_one_record_and_is_counted(tmp_path: Path):
    path = written(tmp_path, life(1))
    whole = path.read_bytes()
    first = len(journal._frame(journal.msgspec.msgpack.encode(life(1)[0])))
    for at in range(first):
        for bit in (0, 3, 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            tail = JournalTail(tmp_path)
            tail.poll()
            assert tail.quarantined == 1, (at, bit)
            assert tail.entries == {"r1": JournalEntry("r1", "e1", None, Usage(10, 4, 3), True, "stop")}


def test_a_sound_frame_that_is_no_record_of_ours_is_quarantined(tmp_path: Path):
    path = written(tmp_path, life(1))
    strange = journal._frame(journal.msgspec.msgpack.encode([99, "?"]))
    path.write_bytes(strange + path.read_bytes())
    tail = JournalTail(tmp_path)
    tail.poll()
    assert tail.quarantined == 1
    assert tail.entries["r1"].closed


def test_segments_rotate_and_are_removed_once_settled(tmp_path: Path):
    writer = JournalWriter(tmp_path, "e1", segment_bytes=300)
    tail = JournalTail(tmp_path)
    for n in range(20):
        for record in life(n):
            writer.append([record])
        assert f"r{n}" in tail.poll()
    assert len(segments(tmp_path)) > 3
    assert all(path.stat().st_size <= 300 for path in segments(tmp_path))
    assert all(entry.closed for entry in tail.entries.values())
    assert len(tail.entries) == 20
    assert tail.removable() == []
    for n in range(1, 20):
        tail.forget(f"r{n}")
    assert segments(tmp_path)[0] not in tail.removable(), "r0 is not settled"
    tail.forget("r0")
    assert tail.removable() == segments(tmp_path)[:-1], "the live segment stays"
    for path in tail.removable():
        remove_segment(path)
        remove_segment(path)
    assert tail.poll() == {}
    writer.close()
    assert set(read_counters(tmp_path)) <= {"r18", "r19"}


def test_a_tail_sees_each_change_once_and_ignores_the_forgotten(tmp_path: Path):
    writer, tail = JournalWriter(tmp_path, "e1"), JournalTail(tmp_path)
    assert tail.poll() == {}
    opened, *counted, closed = life(1)
    writer.append([opened, *counted[:1]])
    assert tail.poll()["r1"].usage.completion == 1
    assert tail.poll() == {}
    writer.append(counted[1:])
    assert tail.poll()["r1"].usage.completion == 3
    tail.forget("r1")
    writer.append([closed])
    assert tail.poll() == {}
    writer.close()


def test_a_new_epoch_seals_the_old_and_its_torn_bytes_are_counted(tmp_path: Path):
    path = written(tmp_path, life(1)[:2], "e1")
    with path.open("ab") as file:
        file.write(journal.MAGIC + b"\0\0")
    tail = JournalTail(tmp_path)
    tail.poll()
    assert tail.torn == 0, "the writer may still be at it"
    written(tmp_path, life(2), "e2")
    tail.poll()
    assert tail.torn == 6
    assert tail.entries["r1"].epoch == "e1"
    assert not tail.entries["r1"].closed
    assert tail.entries["r2"].epoch == "e2"


def test_one_writer_at_a_time(tmp_path: Path):
    writer = JournalWriter(tmp_path, "e1")
    with pytest.raises(MeteringUnavailable):
        JournalWriter(tmp_path, "e2")
    writer.close()
    JournalWriter(tmp_path, "e2").close()


def test_a_full_disk_breaks_the_writer_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(tmp_path, "e1")
    writer.append(life(1))

    def full(_file: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(MeteringUnavailable, match="No space left"):
            writer.append(life(2))
    with pytest.raises(MeteringUnavailable):
        writer.append(life(2))
    with pytest.raises(MeteringUnavailable):
        writer.close()
    assert set(read_counters(tmp_path)) == {"r1"}


def test_a_short_write_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(tmp_path, "e1")
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:-1]))
    with pytest.raises(MeteringUnavailable):
        writer.append(life(1))
    with pytest.raises(MeteringUnavailable):
        writer.close()


def test_a_failed_sync_is_reported_and_never_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    writer = JournalWriter(tmp_path, "e1")
    calls = []

    def failing(file: int) -> None:
        calls.append(file)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    writer.append(life(1))
    writer._syncer.join(5)
    with pytest.raises(MeteringUnavailable, match="Input/output"):
        writer.append(life(2))
    assert len(calls) == 1
    with pytest.raises(MeteringUnavailable):
        writer.close()
