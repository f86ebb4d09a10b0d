"""Identity is content (law 1), blobs are immutable and durable, and their bytes are deterministic."""

import stat

import numpy as np
import pytest

from tenantry.adapters import canonical
from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.errors import BaseUnsupported, BlobCorrupt, BlobMissing
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.store import LocalStore
from tenantry.adapters.testing import BASE, make_upload, name_of
from tenantry.adapters.validate import validate


def digest_of(upload, directory, base=BASE) -> bytes:
    report = validate(upload.write(directory), base)
    assert report.problems == ()
    return report.manifest.digest


def test_the_digest_ignores_what_does_not_change_the_output(tmp_path, upload):
    plain = digest_of(upload, tmp_path / "plain")
    shuffled = make_upload()
    shuffled.tensors = dict(reversed(shuffled.tensors.items()))
    shuffled.metadata = {"format": "pt", "who": "someone else"}
    shuffled.files = {"README.md": b"# hello"}
    shuffled.config |= {"lora_dropout": 0.5, "base_model_name_or_path": "/elsewhere", "peft_version": "9"}
    shuffled.config["target_modules"] = r".*\.(down_proj|q_proj)"
    assert digest_of(shuffled, tmp_path / "shuffled") == plain


GOLDEN = "188561fda1311fcb058183fd3bec3b8492bae93cd1c1c0b0f126cec708733619"


def test_the_digest_of_known_content_never_changes(tmp_path):
    """Blobs and usage rows are named by it: a new value here is a new format, and needs a new domain and magic."""
    upload = make_upload()
    for name, (dtype, shape, _) in list(upload.tensors.items()):
        upload.put(name, np.arange(np.prod(shape), dtype="<f4").reshape(shape) / 64, dtype)
    assert digest_of(upload, tmp_path / "a").hex() == GOLDEN


def flip(upload, name, bit):
    dtype, shape, raw = upload.tensors[name]
    bent = bytearray(raw)
    bent[bit // 8] ^= 1 << bit % 8
    upload.tensors[name] = (dtype, shape, bytes(bent))


@pytest.mark.parametrize("bit", [0, 1, 37, 32 * 4 * 4 * 8 - 32])
@pytest.mark.parametrize("side", "AB")
def test_the_digest_feels_any_bit_of_any_tensor(tmp_path, bit, side):
    bent = make_upload()
    flip(bent, name_of(1, "down_proj" if side == "A" else "q_proj", side), bit)
    assert digest_of(bent, tmp_path / "bent") != digest_of(make_upload(), tmp_path / "plain")


def test_the_digest_feels_scale_base_dtype_and_place(tmp_path):
    renamed = make_upload(modules=("v_proj",))
    moved = make_upload(modules=("k_proj",))
    moved.tensors = {n.replace("v_proj", "k_proj"): t for n, t in renamed.tensors.items()}
    half = make_upload()
    for name, (_, shape, raw) in list(half.tensors.items()):
        half.put(name, np.frombuffer(raw, "<f4").astype("<f2").reshape(shape), "F16")
    other_base = BaseSpec(**{f: getattr(BASE, f) for f in BASE.__struct_fields__} | {"digest": b"c" * 32})
    digests = [
        digest_of(make_upload(), tmp_path / "0"),
        digest_of(make_upload(lora_alpha=8.5), tmp_path / "1"),
        digest_of(make_upload(use_rslora=True), tmp_path / "2"),
        digest_of(make_upload(), tmp_path / "3", other_base),
        digest_of(half, tmp_path / "4"),
        digest_of(renamed, tmp_path / "5"),
        digest_of(moved, tmp_path / "6"),
    ]
    assert len(set(digests)) == len(digests)


def stored(tmp_path, upload, name="store"):
    store = LocalStore(tmp_path / name)
    report = validate(upload.write(tmp_path / "upload"), BASE, store=store)
    assert report.problems == ()
    return store, report.manifest


def test_the_same_adapter_makes_the_same_bytes(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    again = make_upload()
    again.tensors = dict(reversed(again.tensors.items()))
    other, same = stored(tmp_path, again, "other")
    assert same == manifest
    assert store.path(manifest.digest).read_bytes() == other.path(manifest.digest).read_bytes()


def test_the_order_in_which_modules_are_handed_over_changes_nothing(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    with store.open(manifest.digest) as reader:
        tensors = {entry: (a, b) for entry, a, b in reader}
        assert store.put(BASE.digest, "F32", manifest.modules[::-1], tensors.__getitem__) == manifest


def test_the_blob_is_laid_out_as_the_kernels_want_it(tmp_path):
    """Layer-major, fused-site order, 256-byte aligned, ranks padded to 16 with zeros, and copied whole by .data."""
    upload = make_upload(modules=("down_proj", "up_proj", "v_proj", "q_proj", "o_proj"), rank=5)
    store, manifest = stored(tmp_path, upload)
    order = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    assert [(e.layer, e.module) for e in manifest.modules] == [(i, m) for i in range(2) for m in order]
    with store.open(manifest.digest) as reader:
        assert reader.data.nbytes == manifest.bytes
        assert all(at % 256 == 0 for pair in reader.offsets for at in pair)
        for index, entry in enumerate(manifest.modules):
            a, b = reader.padded(index)
            assert a.shape == (16, entry.in_features)
            assert b.shape == (entry.out_features, 16)
            assert not a[5:].any()
            assert not b[:, 5:].any()
            assert a.ctypes.data % 256 == b.ctypes.data % 256 == 0
            for tensor, side in zip(reader.tensors(index), "AB", strict=True):
                assert tensor.tobytes() == upload.tensors[name_of(entry.layer, entry.module, side)][2]
                assert not tensor.flags.writeable


def test_bytes_count_true_ranks_and_nothing_else(tmp_path):
    upload = make_upload(modules=("q_proj",), rank=17)
    _, manifest = stored(tmp_path, upload)
    assert manifest.bytes == 2 * (32 * 32 * 4 + 32 * 32 * 4)


def test_damage_anywhere_in_a_blob_is_found(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    whole = store.path(manifest.digest).read_bytes()
    assert canonical.verify(store.path(manifest.digest)) == manifest
    start = len(whole) - manifest.bytes
    damaged = tmp_path / "damaged"
    length = 12 + int.from_bytes(whole[8:12], "little")
    for at in [*range(0, length, 97), *range(start, len(whole), 4099), len(whole) - 1]:
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BlobCorrupt):
            canonical.verify(damaged)
    for cut in (0, 5, 12, start - 1, start, len(whole) - 1):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(BlobCorrupt):
            canonical.CanonicalReader(damaged)


def test_a_blob_under_anothers_name_is_not_opened(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    store.path(manifest.digest).rename(store.path(b"x" * 32))
    with pytest.raises(BlobCorrupt):
        store.open(b"x" * 32)
    with pytest.raises(BlobMissing):
        store.open(manifest.digest)


def test_the_store_keeps_private_files_and_puts_are_idempotent(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    path = store.path(manifest.digest)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with store.open(manifest.digest) as reader:
        before = [a.copy() for _, a, _ in reader]
        stored(tmp_path, upload)
        store.delete(manifest.digest)
        assert all((a == b).all() for (_, a, _), b in zip(reader, before, strict=True))
    assert list(store.root.iterdir()) == []
    with pytest.raises(BlobMissing):
        store.delete(manifest.digest)


def test_a_put_that_dies_leaves_no_blob(tmp_path, upload):
    store, manifest = stored(tmp_path, upload)
    store.delete(manifest.digest)

    def fetch(entry):
        if entry.layer == 1:
            raise OSError("disk")
        return np.zeros((entry.rank, entry.in_features), "f4"), np.zeros((entry.out_features, entry.rank), "f4")

    with pytest.raises(OSError, match="disk"):
        store.put(BASE.digest, "F32", manifest.modules, fetch)
    assert list(store.root.iterdir()) == []
    (store.root / ".incoming-left-by-a-crash").touch()
    assert store.digests() == []
    assert store.sweep() == 1


def test_the_base_digest_feels_every_weight_file_and_ignores_the_rest(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BaseUnsupported):
        digest_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = digest_model(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert digest_model(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    second = digest_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "renamed.safetensors")
    assert len({first, second, digest_model(tmp_path)}) == 3


@pytest.mark.parametrize(
    "change", [{"model_type": "gpt2"}, {"hidden_size": 0}, {"hidden_size": "4"}, {"num_hidden_layers": True}]
)
def test_a_base_that_cannot_be_described_is_refused_by_name(change):
    config = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
              "num_hidden_layers": 2, "vocab_size": 8}  # fmt: skip
    assert BaseSpec.from_config(config, bytes(32)).kv_heads == 4
    with pytest.raises(BaseUnsupported, match=next(iter(change))):
        BaseSpec.from_config(config | change, bytes(32))
