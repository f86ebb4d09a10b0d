"""Disk is never trusted: whatever happens to a file between its write and its read, a read gives what was asked for,
or says that it does not."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest

from tenantry.runtime.cache import disk as disk_module
from tenantry.runtime.cache.disk import CHECKSUM_BYTES, DiskPages
from tenantry.runtime.cache.names import chain, tag_of
from tenantry.runtime.plan import Copied, Copies, DiskPage, Erase

FORM = b"f" * 32
PAGE, TOKENS, SLOTS = 256, 8, 8
NAMESPACE = b"n" * 32


class Bench:
    """A folder's pages over slots that are plain bytes."""

    def __init__(self, folder: Path, form: bytes = FORM) -> None:
        self.memory = bytearray(PAGE * SLOTS)
        self.disk = DiskPages(folder, form, PAGE, TOKENS, self.slot, lambda: None)
        self.ops = 0

    def slot(self, index: int) -> memoryview:
        return memoryview(self.memory)[index * PAGE : (index + 1) * PAGE]

    def page(self, number: int, slot: int = 0, tenant: str = "acme", weights: bytes | None = None) -> DiskPage:
        names = list(chain(NAMESPACE, bytes(i % 251 for i in range(TOKENS * (number + 1))), TOKENS))
        self.ops += 1
        return DiskPage(self.ops, slot, tag_of(tenant), NAMESPACE, weights, *names[number])

    def fill(self, slot: int, seed: int) -> bytes:
        content = random.Random(seed).randbytes(PAGE)
        self.slot(slot)[:] = content
        return content

    def do(self, **copies) -> Copied:
        self.disk.start(Copies(**copies))
        told, wanted = Copied(), sum(len(copies.get(kind, ())) for kind in ("fetches", "stores"))
        end = time.monotonic() + 20
        while len(told.fetched) + len(told.stored) < wanted:
            assert time.monotonic() < end, "a transfer that never ends"
            told = told + self.disk.settle()
            time.sleep(0.001)
        return told

    def store(self, page: DiskPage, seed: int) -> bytes:
        content = self.fill(page.slot, seed)
        assert [end for _, end in self.do(stores=(page,)).stored] == ["done"]
        self.slot(page.slot)[:] = bytes(PAGE)
        return content

    def fetch(self, page: DiskPage) -> str:
        return self.do(fetches=(page,)).fetched[0][1]


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path / "kv")
    yield made
    made.disk.close()


def test_what_was_written_is_read_into_any_slot(bench):
    for number, weights in enumerate((None, b"w" * 32)):
        page = bench.page(number, slot=1, weights=weights)
        content = bench.store(page, seed=number)
        again = bench.page(number, slot=5, weights=weights)
        assert bench.fetch(again) == "done"
        assert bytes(bench.slot(5)) == content


def test_what_is_not_there_is_a_miss_and_a_neighbour_is_no_answer(bench):
    bench.store(bench.page(0), seed=1)
    assert bench.fetch(bench.page(1)) == "missing"
    assert bench.fetch(bench.page(0, tenant="globex")) == "missing"
    assert bench.fetch(bench.page(0, weights=b"w" * 32)) == "missing"


def test_no_damage_is_ever_believed(bench):
    """Flips, cuts, growth, swaps of files, of owners and of formats."""
    page, other = bench.page(0, slot=1), bench.page(1, slot=2)
    bench.store(page, seed=1)
    bench.store(other, seed=2)
    path = bench.disk.path(page)
    good, neighbour = path.read_bytes(), bench.disk.path(other).read_bytes()
    rng = random.Random(3)
    for _ in range(300):
        kind = rng.randrange(6)
        at = rng.randrange(len(good))
        bad = {
            0: good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :],
            1: good[:at],
            2: good + rng.randbytes(rng.randint(1, 40)),
            3: neighbour,
            4: good[:at] + neighbour[at:],
            5: rng.randbytes(len(good)),
        }[kind]
        if bad in (good, b""):
            continue
        path.write_bytes(bad)
        assert bench.fetch(page) == "bad", (kind, at)
    path.write_bytes(good)
    assert bench.fetch(page) == "done", "the check lets nothing through"
    path.write_bytes(b"")
    assert bench.fetch(page) == "bad"


def test_a_foreign_namespace_s_file_under_our_name_is_refused(bench):
    """An operator copies one tenant's file over another's: the header says whose it was."""
    mine = bench.page(0)
    bench.store(mine, seed=1)
    foreign = DiskPage(99, 3, mine.tenant, b"o" * 32, None, mine.key, mine.parent, mine.tokens)
    target = bench.disk.path(foreign)
    target.parent.mkdir()
    shutil.copy(bench.disk.path(mine), target)
    assert bench.fetch(foreign) == "bad"
    tokens = DiskPage(100, 3, mine.tenant, NAMESPACE, None, mine.key, mine.parent, bytes(TOKENS))
    assert bench.fetch(tokens) == "bad", "other tokens under the same name"


@pytest.mark.parametrize("kind", ["folder", "link", "unreadable"])
def test_what_is_no_file_is_a_refusal(bench, kind, tmp_path, monkeypatch):
    page = bench.page(0)
    bench.store(page, seed=1)
    path = bench.disk.path(page)
    if kind == "unreadable":
        monkeypatch.setattr(disk_module.os, "readv", refuse)
    else:
        moved = tmp_path / "elsewhere"
        path.rename(moved)
        path.mkdir() if kind == "folder" else path.symlink_to(moved)
    assert bench.fetch(page) == "failed" if kind != "folder" else bench.fetch(page) in ("bad", "failed")


def refuse(*args):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["writev", "short", "open", "rename"])
def test_a_disk_that_refuses_a_write_leaves_no_file(bench, call, monkeypatch):
    page = bench.page(0)
    with monkeypatch.context() as patch:
        if call == "short":
            patch.setattr(disk_module.os, "writev", lambda file, parts: os.write(file, parts[0]))
        elif call == "rename":
            patch.setattr(Path, "rename", refuse)
        else:
            patch.setattr(disk_module.os, call, refuse)
        assert bench.do(stores=(page,)).stored[0][1] == "failed"
    assert bench.fetch(page) == "missing"
    bench.store(page, seed=1)
    assert bench.fetch(page) == "done", "it never recovers"


def test_erasing_is_in_order_with_writes(bench):
    pages = [bench.page(n) for n in range(4)]
    for n, page in enumerate(pages):
        bench.store(page, seed=n)
    bench.do(erases=(Erase(pages[0].tenant, NAMESPACE, None, pages[0].key),), stores=(bench.page(0),))
    assert bench.fetch(pages[0]) == "done", "erased, and written again after"
    bench.do(erases=(Erase(pages[0].tenant, NAMESPACE, None, pages[1].key),))
    bench.do(stores=(bench.page(5),))
    assert [bench.fetch(p) for p in pages] == ["done", "missing", "done", "done"]
    bench.do(erases=(Erase(pages[0].tenant, NAMESPACE, None, None),), stores=(bench.page(6),))
    assert [bench.fetch(p) for p in pages] == ["missing"] * 4
    assert bench.fetch(bench.page(6)) == "done"


def test_what_was_erased_before_the_end_is_not_found_by_the_next_life(tmp_path, monkeypatch):
    """The end comes while the writer is still at a page, and an erase waits behind it."""
    bench = Bench(tmp_path / "kv")
    page = bench.page(0)
    bench.store(page, seed=1)
    entered, go_on, write = Event(), Event(), bench.disk._write

    def held_up(page):
        entered.set()
        assert go_on.wait(20)
        return write(page)

    monkeypatch.setattr(bench.disk, "_write", held_up)
    bench.disk.start(Copies(stores=(bench.page(1),)))
    assert entered.wait(20)
    bench.disk.start(Copies(erases=(Erase(page.tenant, NAMESPACE, None, None),)))
    bench.disk.start(Copies(stores=(bench.page(2),)))
    ending = Thread(target=bench.disk.close)
    ending.start()
    while not bench.disk._closing:
        time.sleep(0.001)
    go_on.set()
    ending.join()
    again = Bench(tmp_path / "kv")
    assert list(again.disk.found()) == []
    again.disk.close()


def test_a_new_life_finds_what_was_used_last_at_the_end(tmp_path):
    first = Bench(tmp_path / "kv")
    for n in range(5):
        first.store(first.page(n, weights=b"w" * 32 if n % 2 else None), seed=n)
        os.utime(first.disk.path(first.page(n, weights=b"w" * 32 if n % 2 else None)), (n, n))
    os.utime(first.disk.path(first.page(0)), (9, 9))
    (first.disk.root / "notes.txt").write_text("no page")
    folder = first.disk.path(first.page(0)).parent
    (folder / ("a" * 64 + ".kv")).write_bytes(b"too short")
    (folder / ("b" * 64 + ".incoming")).write_bytes(b"a write that was cut")
    first.disk.close()
    second = Bench(tmp_path / "kv")
    found = list(second.disk.found())
    keys = [second.page(n).key for n in range(5)]
    assert [keys.index(key) for *_, key, _ in found] == [1, 2, 3, 4, 0]
    assert found[-1][:3] == (tag_of("acme"), NAMESPACE, None)
    assert found[0][2] == b"w" * 32
    assert len(list(folder.iterdir())) == 3, "what is no page was left"
    second.disk.close()


def test_another_format_starts_empty_and_removes_what_nobody_holds(tmp_path):
    old = Bench(tmp_path / "kv")
    old.store(old.page(0), seed=1)
    new = Bench(tmp_path / "kv", form=b"g" * 32)
    assert not list(new.disk.found())
    assert new.fetch(new.page(0)) == "missing"
    assert old.fetch(old.page(0)) == "done", "a living engine's pages were removed"
    old.disk.close()
    new.disk.close()
    third = Bench(tmp_path / "kv", form=b"h" * 32)
    assert [p.name for p in (tmp_path / "kv").iterdir()] == [(b"h" * 32).hex()]
    third.disk.close()


def test_two_engines_never_share_a_folder(tmp_path):
    one, two = Bench(tmp_path / "kv"), Bench(tmp_path / "kv")
    one.store(one.page(0), seed=1)
    assert two.disk.root != one.disk.root
    assert two.fetch(two.page(0)) == "missing"
    one.disk.close()
    two.disk.close()


def test_files_are_their_owner_s_alone(bench):
    bench.store(bench.page(0), seed=1)
    path = bench.disk.path(bench.page(0))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


_WRITER = """
import sys, os
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from tests.cache.test_disk_pages import Bench
bench = Bench(Path(sys.argv[1]))
n = 0
while True:
    bench.fill(0, 0)
    bench.do(stores=(bench.page(n % 50),))
    n += 1
    if n == 1:
        print("ready", flush=True)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_whole_pages_or_none(tmp_path):
    root = Path(__file__).parents[2]
    for delay in (0.0, 0.003, 0.01, 0.02):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "kv"), str(root), str(root / ".src")],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay)
        writer.kill()
        writer.wait()
        bench = Bench(tmp_path / "kv")
        found = {key for *_, key, _ in bench.disk.found()}
        assert found, "the first page was whole before the kill"
        written = bench.fill(1, 0)
        for n in range(50):
            page = bench.page(n, slot=2)
            assert bench.fetch(page) == ("done" if page.key in found else "missing")
            assert page.key not in found or bytes(bench.slot(2)) == written
            bench.slot(2)[:] = bytes(PAGE)
        assert not list(bench.disk.root.rglob("*.incoming"))
        bench.disk.close()


def test_the_checksum_covers_the_header(bench):
    page = bench.page(0)
    bench.store(page, seed=1)
    raw = bench.disk.path(page).read_bytes()
    assert len(raw) == len(disk_module._prefix(FORM, NAMESPACE, b"", page.key, page.parent, page.tokens)) + PAGE + (
        CHECKSUM_BYTES
    )
