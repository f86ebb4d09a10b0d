"""Cached machine code: tied to all that it is made of, and to nothing else."""

import pytest

from tenantry.kernels.capability import cpu_capability

if not cpu_capability().numba:
    pytest.skip("numba is not installed", allow_module_level=True)

from tenantry.kernels import threads
from tenantry.kernels.lora import cpu as lora


def names(file: str) -> set[str]:
    return {str(path.relative_to(threads.HERE)) for path in threads.sources(threads.HERE / file)}


def test_machine_code_is_stale_when_anything_that_it_inlines_changes():
    assert {"lora/cpu.py", "lora/table.py", "quant/cpu.py", "tiles.py", "threads.py"} <= names("lora/cpu.py")
    assert {"attention/cpu.py", "attention/reference.py", "tiles.py"} <= names("attention/cpu.py")


def test_machine_code_stays_when_other_files_change():
    for file in ("lora/cpu.py", "attention/cpu.py", "quant/cpu.py"):
        assert not {name for name in names(file) if name.endswith("gpu.py") or name in ("ops.py", "testing.py")}


def test_every_kernel_bears_the_stamp_of_its_own_file():
    stamps = {k._cache._cache_file._source_stamp for k in (lora.one_tile, lora.all_tiles)}
    assert stamps == {threads.digest(threads.HERE / "lora" / "cpu.py")}
    assert lora.multiply._cache._cache_file._source_stamp == threads.digest(threads.HERE / "quant" / "cpu.py")
