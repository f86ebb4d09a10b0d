"""No upload raises out of validate(), none makes it read beyond a file, and a limit hit is an answer or an exit."""

import json
import os
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.adapters.archive import unpack
from tenantry.adapters.canonical import verify
from tenantry.adapters.errors import Code
from tenantry.adapters.manifest import Limits
from tenantry.adapters.peft import INERT, NEUTRAL, PeftConfig
from tenantry.adapters.store import LocalStore
from tenantry.adapters.testing import BASE, framed, make_upload
from tenantry.adapters.validate import Report, validate

SOURCE = Path(__file__).resolve().parents[2] / ".src"
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.one_of(st.integers(), st.sampled_from([0, -1, 1 << 31, 1 << 63, 10**400]), st.floats())
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
expressions = st.sampled_from(["q_proj", ".*", "(", "[", "(?P<idx>1)", "a{99999}", "(?i)x"])
patterns = st.one_of(st.text(max_size=20), expressions)
values = st.one_of(json_values, patterns, st.lists(patterns, max_size=3))
tables = st.dictionaries(patterns, numbers, max_size=3)
entries = st.sampled_from(["dtype", "shape", "data_offsets"])
FIELDS = sorted({*PeftConfig.__struct_fields__, *INERT, *NEUTRAL, "surprise"})
bends = st.lists(
    st.one_of(
        st.tuples(st.just("config"), st.sampled_from(FIELDS), values),
        st.tuples(st.just("config"), st.sampled_from(["rank_pattern", "alpha_pattern"]), tables),
        st.tuples(st.just("entry"), st.integers(0, 7), entries, json_values),
        st.tuples(st.just("shape"), st.integers(0, 7), st.lists(numbers, max_size=3)),
        st.tuples(st.just("offsets"), st.integers(0, 7), st.tuples(st.integers(-5, 9000), st.integers(-5, 9000))),
        st.tuples(st.just("rename"), st.integers(0, 7), st.text(max_size=30)),
        st.tuples(st.just("header"), st.integers(0, 2000), st.integers(0, 255)),
        st.tuples(st.just("byte"), st.integers(0, 12_000), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 12_000)),
        st.tuples(st.just("length"), st.integers(0, (1 << 64) - 1)),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def bent(mutations) -> tuple[bytes, bytes]:
    """(config, weights) of a sound upload after structure-aware mutations of fields, header and raw bytes."""
    upload = make_upload()
    header, names = upload.header(), list(upload.tensors)
    for kind, *arguments in mutations:
        if kind == "config":
            upload.config[arguments[0]] = arguments[1]
        elif kind == "entry":
            header.get(names[arguments[0]], {})[arguments[1]] = arguments[2]
        elif kind in ("shape", "offsets"):
            header.get(names[arguments[0]], {})["shape" if kind == "shape" else "data_offsets"] = arguments[1]
        elif kind == "rename" and names[arguments[0]] in header:
            header[arguments[1]] = header.pop(names[arguments[0]])
    weights = bytearray(framed(header, upload.data()))
    for kind, *arguments in mutations:
        if kind in ("byte", "header"):
            at = (8 if kind == "header" else 0) + arguments[0]
            if at < len(weights):
                weights[at] = arguments[1]
        elif kind == "cut":
            del weights[arguments[0] :]
        elif kind == "length":
            weights[:8] = arguments[0].to_bytes(8, "little")
    return json.dumps(upload.config).encode("utf-8", "surrogatepass"), bytes(weights)


@FUZZ
@given(bends)
def test_no_mutant_raises_and_whatever_is_accepted_is_sound(tmp_path_factory, mutations):
    directory = tmp_path_factory.mktemp("mutant")
    upload = make_upload()
    upload.raw_config, upload.raw_weights = bent(mutations)
    upload.write(directory)
    reads = []

    def pread(handle, count, start):
        reads.append((start + count, os.fstat(handle).st_size))
        return real(handle, count, start)

    real = os.pread
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", pread)
        store = LocalStore(tmp_path_factory.mktemp("store"))
        report = validate(directory, BASE, store=store)
    assert all(end <= size for end, size in reads)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    if report.ok:
        assert verify(store.path(report.manifest.digest)) == report.manifest
        for _, a, b in store.open(report.manifest.digest):
            assert np.isfinite(a).all()
            assert np.isfinite(b).all()
    else:
        assert report.problems
        assert store.digests() == []


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_bent_archive_raises_or_writes_another_name(tmp_path_factory, mutations):
    place = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(place / "upload.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_config.json", "{}" * 20)
        archive.writestr("README.md", "hello")
    raw = bytearray((place / "upload.zip").read_bytes())
    for at, byte in mutations:
        raw[at % len(raw)] = byte
    (place / "upload.zip").write_bytes(raw)
    directory = place / "out"
    directory.mkdir()
    problems = unpack(place / "upload.zip", directory, Limits())
    written = {p.name for p in directory.iterdir()}
    assert written == set() if problems else written <= {"adapter_config.json", "README.md"}
    assert {p.name for p in place.iterdir()} == {"upload.zip", "out"}


def python(*arguments: str, **options) -> subprocess.CompletedProcess[bytes]:
    environment = {"PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=60, **options)


def run(tmp_path: Path, *arguments: str, limits: Limits | None = None, **options):
    (tmp_path / "base.json").write_bytes(msgspec.json.encode(BASE))
    (tmp_path / "limits.json").write_bytes(msgspec.json.encode(limits or Limits()))
    given = [f"--{name}={tmp_path / name}.json" for name in ("base", "limits")]
    given.append(f"--output={tmp_path / 'report.json'}")
    return python("-m", "tenantry.adapters.validate", *given, *arguments, cwd=tmp_path, **options)


def verdict(tmp_path: Path) -> Report:
    return msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Report)


def test_the_process_stores_what_is_sound_and_says_nothing(tmp_path, upload):
    done = run(tmp_path, "--input", str(upload.write(tmp_path / "in")), "--store", str(tmp_path / "store"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    report = verdict(tmp_path)
    assert verify(LocalStore(tmp_path / "store").path(report.manifest.digest)) == report.manifest
    assert report == validate(tmp_path / "in", BASE)


def test_the_process_gives_a_verdict_on_what_is_not(tmp_path, upload):
    upload.config["use_dora"] = True
    done = run(tmp_path, "--input", str(upload.write(tmp_path / "in")), "--store", str(tmp_path / "store"))
    assert done.returncode == 0
    assert [p.code for p in verdict(tmp_path).problems] == [Code.FEATURE_UNSUPPORTED]
    assert LocalStore(tmp_path / "store").digests() == []


def test_the_process_takes_an_archive(tmp_path, upload):
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("adapter_model.safetensors", upload.weights())
        archive.writestr("adapter_config.json", json.dumps(upload.config))
    (tmp_path / "in").mkdir()
    done = run(tmp_path, "--input", str(tmp_path / "in"), "--archive", str(tmp_path / "upload.zip"))
    assert done.returncode == 0, done.stderr
    assert verdict(tmp_path).ok


def test_a_pattern_that_backtracks_for_ever_is_cut_off_with_an_answer(tmp_path, upload):
    upload.config["target_modules"] = r"(((\w|\.)*)*)*!"
    done = run(tmp_path, "--input", str(upload.write(tmp_path / "in")), limits=Limits(cpu_seconds=1))
    assert done.returncode == 0, done.stderr
    assert [p.code for p in verdict(tmp_path).problems] == [Code.LIMIT_EXCEEDED]


@pytest.mark.parametrize("what", ["memory", "file size"])
def test_a_hard_limit_ends_the_process_without_a_verdict_or_a_blob(tmp_path, upload, what):
    kind, bound = {"memory": (resource.RLIMIT_AS, 40 << 20), "file size": (resource.RLIMIT_FSIZE, 4096)}[what]
    done = run(tmp_path, "--input", str(upload.write(tmp_path / "in")), "--store", str(tmp_path / "store"),
               preexec_fn=lambda: resource.setrlimit(kind, (bound, bound)))  # fmt: skip
    assert done.returncode != 0
    assert not (tmp_path / "report.json").exists()
    assert not (tmp_path / "store").exists() or LocalStore(tmp_path / "store").digests() == []


def test_the_confined_process_opens_no_socket_and_starts_no_process(tmp_path):
    code = """
import socket, subprocess, tenantry.adapters.limited as limited
from tenantry.adapters.manifest import Limits
limited.confine(Limits(), 0)
for attempt in (lambda: socket.socket(), lambda: subprocess.run(["true"]), lambda: __import__("os").system("true")):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit(3)
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_validator_starts_without_torch():
    code = "import sys, tenantry.adapters.limited; sys.exit(len({'torch', 'safetensors', 'peft'} & set(sys.modules)))"
    assert python("-c", code).returncode == 0


def test_random_bytes_are_refused(tmp_path):
    draw = random.Random(0)
    for _ in range(50):
        upload = make_upload()
        upload.raw_config = draw.randbytes(draw.randint(0, 300))
        upload.raw_weights = draw.randbytes(draw.randint(0, 300))
        assert not validate(upload.write(tmp_path), BASE).ok
