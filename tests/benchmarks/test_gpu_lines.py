"""The GPU's benchmarks through Triton's interpreter: the lines that a GPU will meet have run, and agree with fp64."""

import pytest
import triton

from benchmarks.gpu import attention, lora
from benchmarks.gpu.device import REAL, error
from benchmarks.gpu.peers import PeerAbsent, load

pytestmark = [
    pytest.mark.skipif(REAL, reason="`make gpu` runs all of them on the device"),
    pytest.mark.skipif(not triton.knobs.runtime.interpret, reason="no TRITON_INTERPRET=1 in the environment"),
]


@pytest.fixture
def case() -> lora.Case:
    return lora.case("mixed", "o", [0, 1, 1], [8, 16])


def test_ours_and_peft_agree_with_fp64(case):
    for make in (lora.ours, lora.peft):
        _, off = lora.timed(case, make, None)
        assert off < 0.01


def test_a_wrong_result_shows(case):
    assert error(case.expected() * 1.05, case.expected()) == pytest.approx(0.05)


def test_a_decode_reads_its_pages():
    c = attention.case("two", [5, 18])
    assert attention.ours(c, attention.DTYPE)[1] < 0.01


@pytest.mark.parametrize(("peer", "file"), [("vllm", "lora_shrink_op"), ("lmdeploy", "fused_lora")])
def test_a_peer_that_is_not_there_is_absent(tmp_path, peer: str, file: str):
    with pytest.raises(PeerAbsent, match="folder"):
        load(None, peer, file)
    with pytest.raises(PeerAbsent, match=file):
        load(tmp_path, peer, file)


def test_a_peers_file_that_does_not_run_is_absent(tmp_path):
    (tmp_path / "lightllm").mkdir()
    (tmp_path / "lightllm" / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(PeerAbsent, match="nothing_of_that_name"):
        load(tmp_path, "lightllm", "broken")
