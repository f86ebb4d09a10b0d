"""Group C of the bad inputs, one row per number: each upload gets its code, and all its faults at once."""

import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tenantry.adapters.archive import unpack
from tenantry.adapters.errors import Code
from tenantry.adapters.manifest import Limits
from tenantry.adapters.testing import BASE, Upload, framed, make_upload, name_of
from tenantry.adapters.validate import validate

A = name_of(0, "q_proj", "A")
B = name_of(1, "down_proj", "B")
Bend = Callable[[Upload], object]


def config(**fields) -> Bend:
    return lambda u: u.config.update(fields)


def raw_config(raw: bytes) -> Bend:
    return lambda u: setattr(u, "raw_config", raw)


def raw_weights(raw: bytes) -> Bend:
    return lambda u: setattr(u, "raw_weights", raw)


def extra(name: str, content: bytes = b"x") -> Bend:
    return lambda u: u.files.update({name: content})


def header(change: Callable[[dict], object], data: Callable[[bytes], bytes] = bytes) -> Bend:
    def bend(upload: Upload) -> None:
        made = upload.header()
        change(made)
        upload.raw_weights = framed(made, data(upload.data()))

    return bend


def entry(name: str, **fields) -> Bend:
    return header(lambda h: h[name].update(fields))


def tensor(name: str, values, dtype: str = "F32") -> Bend:
    return lambda u: u.put(name, np.asarray(values), dtype)


def value(name: str, number: float) -> Bend:
    def bend(upload: Upload) -> None:
        dtype, shape, raw = upload.tensors[name]
        upload.tensors[name] = (dtype, shape, raw[:-4] + struct.pack("<f", number))

    return bend


def duplicate_name(upload: Upload) -> None:
    once_more = json.dumps({A: upload.header()[A]})[:-1] + ","
    upload.raw_weights = framed((once_more + json.dumps(upload.header())[1:]).encode(), upload.data())


def mixed_dtypes(upload: Upload) -> None:
    upload.put(A, np.zeros((4, 32), "<f2"), "F16")


def renamed(old: str, new: str) -> Bend:
    return lambda u: u.tensors.update({new: u.tensors.pop(old)})


def nested(depth: int) -> bytes:
    return b'{"r":' + b"[" * depth + b"]" * depth + b"}"


F32 = np.zeros
CASES: list[tuple[str, Bend, set[tuple[Code, str]]]] = [
    ("57 bin", extra("pytorch_model.bin"), {(Code.FORMAT_NOT_ALLOWED, "pytorch_model.bin")}),
    ("57 pt", extra("adapter_model.pt"), {(Code.FORMAT_NOT_ALLOWED, "adapter_model.pt")}),
    ("57 py", extra("modeling.py"), {(Code.FORMAT_NOT_ALLOWED, "modeling.py")}),
    ("57 pth", extra("evil.pth"), {(Code.FORMAT_NOT_ALLOWED, "evil.pth")}),
    ("57 pickle renamed", raw_weights(b"\x80\x04\x95" + bytes(60)),
     {(Code.FORMAT_NOT_ALLOWED, "adapter_model.safetensors")}),
    ("57 zipped torch file renamed", raw_weights(b"PK\x03\x04" + bytes(60)),
     {(Code.FORMAT_NOT_ALLOWED, "adapter_model.safetensors")}),
    ("59 empty", raw_weights(b""), {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 short", raw_weights(b"\x02\0\0"), {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 header length 0", raw_weights(bytes(64)), {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 header past the end", raw_weights(b"\xff\0\0\0\0\0\0\0{}"),
     {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 header of 2^63", raw_weights((1 << 63).to_bytes(8, "little") + b"{}"),
     {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 header of 1 MiB + 1", raw_weights(framed(b"{}" + b" " * ((1 << 20) - 1), b"")),
     {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("59 header not JSON", raw_weights(framed(b"{,}", b"")),
     {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("60 overlap", entry(B, data_offsets=[0, 512]), {(Code.SAFETENSORS_HEADER, B)}),
    ("60 hole", header(lambda h: h.pop(A)), {(Code.SAFETENSORS_HEADER, name_of(0, "q_proj", "B"))}),
    ("60 trailing data", header(dict, lambda d: d + b"x"), {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("60 truncated", header(dict, lambda d: d[:-1]), {(Code.SAFETENSORS_HEADER, B)}),
    ("60 begin after end", entry(A, data_offsets=[512, 0]), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 shape and bytes differ", entry(A, shape=[4, 33]), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 dimensions overflow", entry(A, shape=[1 << 32, 1 << 32, 1 << 32]), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 negative dimension", entry(A, shape=[-4, -32]), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 offsets are not integers", entry(A, data_offsets=[0.0, True]), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 an entry is not an object", header(lambda h: h.update({A: 1})), {(Code.SAFETENSORS_HEADER, A)}),
    ("60 metadata is not strings", header(lambda h: h.update({"__metadata__": {"a": 1}})),
     {(Code.SAFETENSORS_HEADER, "__metadata__")}),
    ("61 duplicate tensor names", duplicate_name, {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("61 zero-size dimensions", tensor("z", F32((0, 10**9), "<f4")), {(Code.SAFETENSORS_HEADER, "z")}),
    ("61 too many tensors", raw_weights(framed({f"t{i}": 0 for i in range(5000)}, b"")),
     {(Code.SAFETENSORS_HEADER, "adapter_model.safetensors")}),
    ("61 name climbs", renamed(A, "../x"), {(Code.SAFETENSORS_HEADER, "../x")}),
    ("61 name with NUL", renamed(A, "a\0b"), {(Code.SAFETENSORS_HEADER, "a�b")}),
    ("61 name of 1 MB", renamed(A, "a" * 900_000), {(Code.SAFETENSORS_HEADER, "a" * 199 + "…")}),
    *((f"62 {kind}", entry(A, dtype=kind), {(Code.DTYPE_UNSUPPORTED, A)})
      for kind in ("I8", "F8_E4M3", "BOOL", "U64", "F64", "", 7)),
    ("62 mixed dtypes", mixed_dtypes, {(Code.DTYPE_UNSUPPORTED, "")}),
    ("63 NaN", value(A, float("nan")), {(Code.VALUE_OUT_OF_RANGE, A)}),
    ("63 infinity", value(A, float("inf")), {(Code.VALUE_OUT_OF_RANGE, A)}),
    ("63 minus infinity", value(B, float("-inf")), {(Code.VALUE_OUT_OF_RANGE, B)}),
    ("63 overflows bf16", value(A, 3.4e38), {(Code.VALUE_OUT_OF_RANGE, A)}),
    ("63 beyond the bound", value(A, -10001.0), {(Code.VALUE_OUT_OF_RANGE, A)}),
    ("64 A without B", lambda u: u.tensors.pop(B), {(Code.TENSOR_MISSING, B)}),
    ("64 B without A", lambda u: u.tensors.pop(A), {(Code.TENSOR_MISSING, A)}),
    ("64 rank of A", tensor(A, F32((5, 32), "<f4")), {(Code.RANK_MISMATCH, A)}),
    ("64 rank of the config", config(r=5), {(Code.RANK_MISMATCH, name_of(i, m, s))
                                            for i in (0, 1) for m in ("q_proj", "down_proj") for s in "AB"}),
    ("64 layer beyond the base", tensor(name_of(2, "q_proj", "A"), F32((4, 32), "<f4")),
     {(Code.UNKNOWN_MODULE, name_of(2, "q_proj", "A"))}),
    ("64 unknown module", tensor("base_model.model.model.layers.0.self_attn.w.lora_A.weight", F32((4, 32), "<f4")),
     {(Code.UNKNOWN_MODULE, "base_model.model.model.layers.0.self_attn.w.lora_A.weight")}),
    ("64 module under the wrong parent", renamed(A, A.replace("self_attn", "mlp")),
     {(Code.UNKNOWN_MODULE, A.replace("self_attn", "mlp")), (Code.TENSOR_MISSING, A)}),
    ("64 module not targeted", config(target_modules=["q_proj"]),
     {(Code.UNKNOWN_MODULE, name_of(i, "down_proj", s)) for i in (0, 1) for s in "AB"}),
    ("65 another base's shape", tensor(A, F32((4, 64), "<f4")), {(Code.BASE_MISMATCH, A)}),
    ("65 sharded", tensor(B, F32((16, 4), "<f4")), {(Code.BASE_MISMATCH, B)}),
    ("65 three dimensions", tensor(A, F32((4, 32, 1), "<f4")), {(Code.BASE_MISMATCH, A)}),
    ("65 targets of another architecture", config(target_modules=["c_attn"]),
     {(Code.BASE_MISMATCH, "target_modules")}),
    ("65 layers of another base", config(layers_to_transform=[0, 1, 7]),
     {(Code.BASE_MISMATCH, "layers_to_transform")}),
    *((f"66 r {r}", config(r=r), {(Code.CONFIG_INVALID, "r")}) for r in (0, -5, 1.5, 10**9, "4", True, None)),
    *((f"66 alpha {a}", config(lora_alpha=a), {(Code.CONFIG_INVALID, "lora_alpha")})
      for a in (0, -1, 1e30, 10**400, "8", None)),
    ("66 alpha NaN", raw_config(b'{"peft_type":"LORA","r":4,"lora_alpha":NaN}'),
     {(Code.CONFIG_INVALID, "adapter_config.json")}),
    ("66 alpha 1e999", raw_config(b'{"peft_type":"LORA","r":4,"lora_alpha":1e999,"target_modules":["q_proj"]}'),
     {(Code.CONFIG_INVALID, "lora_alpha")}),
    ("66 alpha over r", config(lora_alpha=4 * 1024 + 1), {(Code.CONFIG_INVALID, "lora_alpha")}),
    ("66 rank in a pattern", config(rank_pattern={"q_proj": 0}), {(Code.CONFIG_INVALID, "rank_pattern")}),
    ("66 alpha in a pattern", config(alpha_pattern={"q_proj": -1}), {(Code.CONFIG_INVALID, "alpha_pattern")}),
    *((f"67 {key}", config(**{key: v}), {(Code.FEATURE_UNSUPPORTED, key)}) for key, v in {
        "modules_to_save": ["lm_head"], "use_dora": True, "bias": "all", "lora_bias": True,
        "target_parameters": ["mlp.experts"], "trainable_token_indices": [1], "alora_invocation_tokens": [5],
        "layer_replication": [[0, 1]], "loftq_config": {"loftq_bits": 4}, "corda_config": {}, "arrow_config": {},
        "use_qalora": True, "use_bdlora": {}, "kasa_config": {}, "velora_config": {}, "monteclora_config": {},
        "lora_ga_config": {}, "ensure_weight_tying": True, "init_lora_weights": "pissa_niter_4",
        "task_type": "SEQ_CLS", "peft_type": "IA3"}.items()),
    ("67 embeddings targeted", config(target_modules=["q_proj", "down_proj", "embed_tokens", "lm_head"]),
     {(Code.FEATURE_UNSUPPORTED, "model.embed_tokens"), (Code.FEATURE_UNSUPPORTED, "lm_head")}),
    ("67 tensor of a head", tensor("base_model.model.lm_head.lora_A.weight", F32((4, 32), "<f4")),
     {(Code.FEATURE_UNSUPPORTED, "base_model.model.lm_head.lora_A.weight")}),
    ("67 DoRA's vector", tensor(A.replace("lora_A.weight", "lora_magnitude_vector"), F32((32,), "<f4")),
     {(Code.FEATURE_UNSUPPORTED, A.replace("lora_A.weight", "lora_magnitude_vector"))}),
    *((f"68 {key}", config(**{key: v}), {(code, key)}) for key, v, code in (
        ("megatron_config", {"a": 1}, Code.FEATURE_UNSUPPORTED),
        ("megatron_core", "os", Code.FEATURE_UNSUPPORTED),
        ("auto_mapping", {"base_model_class": "x", "parent_library": "os"}, Code.FEATURE_UNSUPPORTED),
        ("auto_map", {"AutoModel": "x.y"}, Code.CONFIG_INVALID),
        ("trust_remote_code", True, Code.CONFIG_INVALID),
        ("tokenizer_class", "x", Code.CONFIG_INVALID),
        ("base_model_name_or_path", 7, Code.CONFIG_INVALID))),
    ("69 too large", raw_config(b'{"r":4' + b" " * (64 << 10) + b"}"), {(Code.TOO_LARGE, "adapter_config.json")}),
    *((f"69 {what}", raw_config(raw), {(Code.CONFIG_INVALID, "adapter_config.json")}) for what, raw in {
        "nested 10^4": nested(10_000), "nested 65": nested(65), "unclosed": b"[" * 60_000,
        "duplicate keys": b'{"r":4,"r":4}', "BOM": b'\xef\xbb\xbf{"r":4}', "UTF-16": '{"r":4}'.encode("utf-16"),
        "UTF-16 without BOM": '{"r":4}'.encode("utf-16-le"), "not UTF-8": b'{"r":"\xff"}', "a list": b"[]",
        "empty": b"", "half a surrogate": b'{"revision":"\\ud800"}', "digits": b'{"r":' + b"9" * 5000 + b"}",
        "infinity": b'{"lora_alpha":-Infinity}'}.items()),
    ("69 pattern is no expression", config(rank_pattern={"(": 4}), {(Code.CONFIG_INVALID, "rank_pattern")}),
    ("69 pattern too long", config(target_modules="q_proj|" * 100), {(Code.CONFIG_INVALID, "target_modules")}),
    ("70 tokenizer", extra("tokenizer.json"), {(Code.FORMAT_NOT_ALLOWED, "tokenizer.json")}),
    ("70 added tokens", extra("added_tokens.json"), {(Code.FORMAT_NOT_ALLOWED, "added_tokens.json")}),
    ("70 chat template", extra("chat_template.jinja"), {(Code.FORMAT_NOT_ALLOWED, "chat_template.jinja")}),
]  # fmt: skip


@pytest.mark.parametrize(("bend", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_row(bend, expected, tmp_path, upload):
    bend(upload)
    report = validate(upload.write(tmp_path / "upload"), BASE)
    assert report.manifest is None
    found = {(p.code, p.subject) for p in report.problems}
    assert expected <= found
    # A fault of the config hides nothing of the weights, and nothing but its own consequences comes with it.
    consequences = {Code.TENSOR_MISSING, Code.UNKNOWN_MODULE, Code.SAFETENSORS_HEADER}
    assert {code for code, _ in found - expected} <= consequences
    for problem in report.problems:
        assert len(problem.message) + len(problem.subject) < 1000
        assert str(tmp_path) not in problem.message
        assert not re.search(r"tenantry|Traceback|Error\b", problem.message)


def test_the_sound_upload_is_accepted_so_that_every_row_above_tests_its_own_fault(tmp_path, upload):
    report = validate(upload.write(tmp_path / "upload"), BASE)
    assert report.problems == report.warnings == ()
    assert report.manifest.base_digest == BASE.digest


def test_row_63_all_zero_is_accepted_with_a_warning(tmp_path, upload):
    upload.put(B, np.zeros((32, 4), "<f4"))
    report = validate(upload.write(tmp_path / "upload"), BASE)
    assert report.ok
    assert [(w.code, w.subject) for w in report.warnings] == [(Code.NO_EFFECT, B)]


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize(("bits", "word"), [("7e00", "NaN"), ("7c00", "infinity")])
def test_row_63_in_half_precision(dtype, bits, word, tmp_path, upload):
    bits = {"7e00": "7fc0", "7c00": "7f80"}[bits] if dtype == "BF16" else bits
    for name, (_, shape, _) in list(upload.tensors.items()):
        upload.put(name, np.full(shape, 0x3C00, "<u2"), dtype)
    half = np.full((4, 32), 0x3C00, "<u2")
    half[3, 31] = int(bits, 16)
    upload.put(A, half, dtype)
    report = validate(upload.write(tmp_path / "upload"), BASE)
    assert [(p.code, p.subject, p.message) for p in report.problems] == [
        (Code.VALUE_OUT_OF_RANGE, A, f"holds {word}")
    ]


def test_all_faults_of_an_upload_are_reported_at_once_sorted_and_bounded(tmp_path, upload):
    for bend in (config(use_dora=True, modules_to_save=["x"]), extra("x.py"), extra("tokenizer.json"),
                 value(A, float("nan")), value(B, 1e5), tensor(name_of(0, "q_proj", "B"), F32((7, 4), "<f4")),
                 tensor(name_of(9, "q_proj", "B"), F32((32, 4), "<f4"))):  # fmt: skip
        bend(upload)
    report = validate(upload.write(tmp_path / "upload"), BASE)
    assert [(p.code, p.subject) for p in report.problems] == [
        (Code.BASE_MISMATCH, name_of(0, "q_proj", "B")),
        (Code.FEATURE_UNSUPPORTED, "modules_to_save"),
        (Code.FEATURE_UNSUPPORTED, "use_dora"),
        (Code.FORMAT_NOT_ALLOWED, "tokenizer.json"),
        (Code.FORMAT_NOT_ALLOWED, "x.py"),
        (Code.UNKNOWN_MODULE, name_of(9, "q_proj", "B")),
        (Code.VALUE_OUT_OF_RANGE, A),
        (Code.VALUE_OUT_OF_RANGE, B),
    ]
    few = validate(tmp_path / "upload", BASE, Limits(max_problems=3)).problems
    assert few[:3] == report.problems[:3]
    assert few[3].message == "and 5 more"


def test_row_54_links_pipes_and_folders_are_not_opened(tmp_path, upload):
    directory = upload.write(tmp_path / "upload")
    secret = tmp_path / "secret"
    secret.write_text("x")
    (directory / "README.md").symlink_to(secret)
    (directory / "adapter_config.json").unlink()
    os.link(secret, directory / "adapter_config.json")
    os.mkfifo(directory / "pipe")
    (directory / "folder").mkdir()
    problems = {(p.code, p.subject) for p in validate(directory, BASE).problems}
    assert problems == {(Code.ARCHIVE_PATH, n) for n in ("README.md", "adapter_config.json", "pipe", "folder")} | {
        (Code.FILE_MISSING, "adapter_config.json")
    }


def test_an_empty_upload_lacks_both_files(tmp_path):
    problems = validate(tmp_path, BASE).problems
    assert {(p.code, p.subject) for p in problems} == {
        (Code.FILE_MISSING, "adapter_config.json"), (Code.FILE_MISSING, "adapter_model.safetensors")
    }  # fmt: skip


def zipped(path: Path, *entries: tuple[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", options.get("method", zipfile.ZIP_STORED)) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = options.get("mode", 0o100644) << 16
            info.compress_type = options.get("method", zipfile.ZIP_STORED)
            archive.writestr(info, content)
    return path


GOOD = ("adapter_config.json", b"{}")
LONG = "a/" * 300 + "x"


@pytest.mark.parametrize(
    ("entries", "options", "code"),
    [
        *(([GOOD, (name, b"x")], {}, Code.ARCHIVE_PATH)
          for name in ("../x", "/etc/x", "C:x", "a\\b", LONG, "adapter/adapter_config.json", "folder/")),
        ([("adapter_config.json", b"/etc/passwd")], {"mode": stat.S_IFLNK | 0o777}, Code.ARCHIVE_PATH),
        ([GOOD], {"mode": stat.S_IFIFO | 0o644}, Code.ARCHIVE_PATH),
        ([GOOD], {"mode": stat.S_IFCHR | 0o644}, Code.ARCHIVE_PATH),
        ([GOOD], {"mode": stat.S_IFREG | stat.S_ISUID | 0o755}, Code.ARCHIVE_PATH),
        ([("adapter_model.safetensors", bytes(8 << 20))], {"method": zipfile.ZIP_DEFLATED}, Code.ARCHIVE_INVALID),
        ([("README.md", bytes((1 << 20) + 1))], {}, Code.TOO_LARGE),
        ([("inner.zip", b"PK")], {}, Code.FORMAT_NOT_ALLOWED),
        ([(f"f{i}", b"") for i in range(9)], {}, Code.ARCHIVE_INVALID),
        ([GOOD], {"method": zipfile.ZIP_LZMA}, Code.ARCHIVE_INVALID),
        ([GOOD, ("Adapter_Config.json", b"{}")], {}, Code.ARCHIVE_PATH),
        ([GOOD, ("adapter_model.bin", b"x")], {}, Code.FORMAT_NOT_ALLOWED),
    ],
)  # fmt: skip
def test_rows_53_to_57_in_archives(entries, options, code, tmp_path):
    archive, directory = zipped(tmp_path / "upload.zip", *entries, **options), tmp_path / "out"
    directory.mkdir()
    assert code in {p.code for p in unpack(archive, directory, Limits())}
    assert list(directory.iterdir()) == []
    assert not (tmp_path / "x").exists()


def bent_archives(tmp_path: Path):
    good = zipped(tmp_path / "good.zip", GOOD, ("README.md", b"hello")).read_bytes()
    at = good.index(b"PK\x01\x02")
    second = good.index(b"PK\x01\x02", at + 1)
    end = good.index(b"PK\x05\x06")

    def patched(position: int, raw: bytes) -> bytes:
        return good[:position] + raw + good[position + len(raw) :]

    yield "encrypted", patched(at + 8, b"\x01\x00")
    yield "overlapping", patched(second + 42, bytes(4))
    yield "declared size too small", patched(at + 24, struct.pack("<L", 1))
    yield "declared size too large", patched(at + 24, struct.pack("<L", 900))
    yield "compressed size too large", patched(at + 20, struct.pack("<L", 1 << 30))
    yield "a million entries claimed", patched(end + 8, b"\xff\xff\xff\xff")
    yield "duplicate names", zip_with_duplicates(tmp_path)
    yield "name with NUL", good.replace(b"README.md", b"README\0md")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        yield "zip64", zipped(tmp_path / "zip64.zip", GOOD).read_bytes()
    yield "cut", good[:end]
    yield "not a zip", b"hello"
    yield "empty", b""
    yield "wrong checksum", patched(at + 16, bytes(4))
    yield "directory out of the file", patched(end + 16, b"\xff\xff\xff\x7f")


def zip_with_duplicates(tmp_path: Path) -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(tmp_path / "twice.zip", GOOD, GOOD).read_bytes()


def test_rows_55_and_56_bent_archives_leave_nothing(tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    for what, content in bent_archives(tmp_path):
        archive = tmp_path / "bent.zip"
        archive.write_bytes(content)
        assert unpack(archive, directory, Limits()), what
        assert list(directory.iterdir()) == [], what


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_sound_archive_becomes_the_upload(tmp_path, upload, method):
    archive = zipped(tmp_path / "upload.zip", ("adapter_model.safetensors", upload.weights()),
                     ("adapter_config.json", json.dumps(upload.config).encode()), method=method)  # fmt: skip
    directory = tmp_path / "out"
    directory.mkdir()
    assert unpack(archive, directory, Limits()) == []
    assert validate(directory, BASE).ok
    assert {stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()} == {0o600}


def test_row_74_the_same_bytes_twice_get_the_same_answer(tmp_path, upload):
    one = validate(upload.write(tmp_path / "one"), BASE)
    two = validate(make_upload().write(tmp_path / "two"), BASE)
    assert one == two
