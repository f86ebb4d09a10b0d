"""Cached machine code: tied to all that it is made of, and to nothing else."""

import pytest

from tenantry.kernels.capability import cpu_capability

if not cpu_capability().numba:
    pytest.skip("numba is not installed", allow_module_level=True)

from tenantry.kernels import compiling
from tenantry.kernels.lora import cpu as lora
from tenantry.kernels.quant import panels


def names(file: str) -> set[str]:
    return {str(path.relative_to(compiling.HERE)) for path in compiling.sources(compiling.HERE / file)}


def test_machine_code_is_stale_when_anything_that_it_inlines_changes():
    assert {"lora/cpu.py", "lora/layout.py", "lora/tiles.py", "tiles.py", "compiling.py"} <= names("lora/cpu.py")
    assert {"attention/cpu.py", "attention/reference.py", "tiles.py"} <= names("attention/cpu.py")


def test_machine_code_stays_when_other_files_change():
    for file in ("lora/cpu.py", "attention/cpu.py", "quant/panels.py"):
        assert not {name for name in names(file) if name.endswith("gpu.py") or name in ("ops.py", "testing.py")}


def test_every_kernel_bears_the_stamp_of_its_own_file():
    for kernel, file in ((lora.all_tiles, "lora/cpu.py"), (panels.multiply, "quant/panels.py")):
        assert kernel._cache._cache_file._source_stamp == compiling.digest(compiling.HERE / file)
