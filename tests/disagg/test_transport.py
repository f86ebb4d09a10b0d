"""Laws of segments: what was written is what is read, damage is noticed, and nothing outlives the next life."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from tenantry.runtime.disagg.names import names
from tenantry.runtime.disagg.transport import SharedMemory
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.messages import HandOff, PageDigest, Sampling, Usage
from tenantry.runtime.namespace import Namespace

SIZE, PAGES = 100, 4
A, B = (Namespace(tenant, bytes(32)).key for tenant in (b"tenant-a", b"tenant-b"))
BYTES = bytes(range(200)) * 2


@pytest.fixture
def memory(tmp_path: Path):
    memory = SharedMemory(tmp_path / "shared", "prefill-0", "e1")
    yield memory
    memory.close()


def leave(memory: SharedMemory, data: bytes = BYTES) -> HandOff:
    segment = memory.make(len(data))
    segment.view[:] = data
    digests = segment.seal(list(names(A, range(PAGES * 4), 4)))
    return HandOff(A, None, Sampling(max_tokens=1), Usage(), "f", segment.name, SIZE, digests)


def fetch(memory: SharedMemory, hand_off: HandOff, first: int = 0) -> memoryview | None:
    memory.fetch("r", hand_off, first)
    while not (ended := memory.ended()):
        pass
    [(request_id, found)] = ended
    assert request_id == "r"
    return found


def path(memory: SharedMemory, hand_off: HandOff) -> Path:
    return memory._folder / hand_off.segment


def test_what_was_left_is_found_also_from_the_middle_on_and_after_its_removal(tmp_path, memory):
    hand_off = leave(memory)
    reader = SharedMemory(tmp_path / "shared", "decode-1", "e9")
    whole, rest = fetch(reader, hand_off), fetch(reader, hand_off, 3)
    path(memory, hand_off).unlink()
    assert whole is not None
    assert rest is not None
    assert bytes(whole) == BYTES
    assert bytes(rest) == BYTES[3 * SIZE :]
    assert fetch(reader, hand_off) is None, "gone"


@pytest.mark.parametrize("at", [0, SIZE - 1, 2 * SIZE, PAGES * SIZE - 1])
def test_one_wrong_bit_anywhere_is_damage(memory, at):
    hand_off = leave(memory)
    file = path(memory, hand_off)
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(bytes(data))
    assert fetch(memory, hand_off) is None
    assert fetch(memory, hand_off, at // SIZE + 1) is not None, "nobody asked for that page"


def test_what_is_shorter_or_longer_than_announced_is_not_read(memory):
    hand_off = leave(memory)
    for size in (0, SIZE, PAGES * SIZE - 1, PAGES * SIZE + 1):
        os.truncate(path(memory, hand_off), size)
        assert fetch(memory, hand_off) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "prefill-0/../../x", "prefill-0", "", "a/b/c-1"])
def test_only_segments_are_opened(tmp_path, memory, name):
    (tmp_path / "secret").write_bytes(BYTES)
    assert fetch(memory, msgspec.structs.replace(leave(memory), segment=name)) is None


def test_a_link_is_not_followed(tmp_path, memory):
    hand_off = leave(memory)
    file = path(memory, hand_off)
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    assert fetch(memory, hand_off) is None


def test_a_new_life_sweeps_what_the_last_one_left_and_touches_nobody_elses(tmp_path, memory):
    """A killed engine has closed nothing."""
    old, other = leave(memory), SharedMemory(tmp_path / "shared", "prefill-1", "e1")
    kept = leave(other)
    again = SharedMemory(tmp_path / "shared", "prefill-0", "e2")
    assert not path(memory, old).exists()
    assert path(other, kept).exists()
    mine = leave(again)
    again.close()
    assert not path(again, mine).exists()
    assert path(other, kept).exists()
    other.close()


def test_segments_are_this_users_alone(tmp_path, memory):
    hand_off = leave(memory)
    assert stat.S_IMODE(path(memory, hand_off).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(InvalidRequest, match="alone"):
        SharedMemory(tmp_path / "open", "prefill-0", "e1")


def test_a_memory_that_is_full_is_an_error_and_leaves_nothing(memory, tmp_path):
    with pytest.raises(OSError, match=r"."):
        memory.make(1 << 60)
    assert list((tmp_path / "shared" / "prefill-0").iterdir()) == []


def test_names_cover_the_namespace_and_every_token_before_them():
    tokens = list(range(12))
    ours = list(names(A, tokens, 4))
    assert len(ours) == 3
    assert len(set(ours)) == 3
    assert not set(ours) & set(names(B, tokens, 4))
    changed = list(names(A, [*tokens[:5], 99, *tokens[6:]], 4))
    assert [x == y for x, y in zip(ours, changed, strict=True)] == [True, False, False]
    assert list(names(A, [*tokens, 7], 4)) == ours
    assert PageDigest(ours[0], b"c") != PageDigest(ours[1], b"c")
