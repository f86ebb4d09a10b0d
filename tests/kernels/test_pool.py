"""The pool of CPU threads: every part of a region is computed, once, whoever is awake."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tenantry.kernels.capability import cpu_capability

if not cpu_capability().numba:
    pytest.skip("numba is not installed", allow_module_level=True)

from tenantry.kernels import pool
from tenantry.kernels.atomics import add, cycles
from tenantry.kernels.compiling import compiled
from tenantry.kernels.pool import fan_out


@compiled
def count_part(part: int, parts: int, seen: int, wait: int) -> None:
    began = cycles()
    while cycles() - began < wait:
        pass
    add(seen + 8 * part, 1 + parts)


@compiled
def count(parts: int, seen: int, wait: int) -> None:
    fan_out(count_part, parts, (seen, wait))


@compiled
def count_often(regions: int, parts: int, seen: int) -> None:
    for _ in range(regions):
        fan_out(count_part, parts, (seen, 0))


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = pool.get_threads()
    yield pool.set_threads(request.param)
    pool.set_threads(before)


@pytest.mark.parametrize("parts", [1, 2, 7, 100])
def test_every_part_is_computed_once(threads, parts):
    seen = np.zeros(parts + 1, np.int64)
    count(parts, seen.ctypes.data, 0)
    assert seen.tolist() == [1 + parts] * parts + [0]


def test_regions_in_quick_succession_do_not_mix(threads):
    """More threads than cores, so that some are put aside anywhere inside a region."""
    seen = np.zeros(5, np.int64)
    for _ in range(20):
        count_often(500, 5, seen.ctypes.data)
    assert seen.tolist() == [20 * 500 * 6] * 5


def test_a_region_finds_workers_that_went_to_sleep(threads):
    seen = np.zeros(4, np.int64)
    for i in range(10):
        count(4, seen.ctypes.data, 100_000)
        time.sleep(0.0004 * (i % 4))  # about as long as they stay awake: asleep, awake, and just lying down
    assert seen.tolist() == [50] * 4


def test_callers_do_not_wait_for_each_other(threads):
    seen = np.zeros((4, 6), np.int64)

    def call(me: int) -> None:
        for _ in range(200):
            count(6, seen[me].ctypes.data, 1000)

    callers = [threading.Thread(target=call, args=(me,)) for me in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert (seen == 200 * 7).all()


def test_helpers_share_the_work():
    before = pool.get_threads()
    pool.set_threads(2)
    helped = False
    for _ in range(50):  # a busy machine may leave the second thread aside for a while
        seen = np.zeros(2, np.int64)
        began = time.perf_counter()
        count(1, seen.ctypes.data, 20_000_000)
        alone = time.perf_counter() - began
        began = time.perf_counter()
        count(2, seen.ctypes.data, 20_000_000)
        helped = helped or time.perf_counter() - began < 1.5 * alone
    pool.set_threads(before)
    assert helped


END = """
import os, time
import numpy as np
from tenantry.kernels import pool
from tenantry.kernels.elementwise import cpu
import torch
pool.set_threads(3)
cpu.SINGLE_THREAD_VALUES = 0
x, w = torch.ones(64, 64), torch.ones(64)
one = cpu.add_norm(x, None, w, 1e-6)
child = os.fork()
again = cpu.add_norm(x, None, w, 1e-6)  # in the child without a single worker
assert torch.equal(one, again)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_ends_and_forks_with_workers_about():
    """The interpreter takes machine code away when it ends; a child has no thread but its own."""
    subprocess.run([sys.executable, "-c", END], check=True, timeout=120)
