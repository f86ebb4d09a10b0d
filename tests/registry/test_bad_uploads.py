"""Group C of the bad-input catalogue: adapter uploads, row by row, through HTTP and the real validator process.

Every row is sent once, a few at a time, when the module starts; the tests then look at the answers.
"""

import hashlib
import json
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest

from tenantry.platform.testing import problems_of

WEIGHTS = "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
QB = Q.replace("lora_A", "lora_B")


def zipped(entries, **options):
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return [("file", ("adapter.zip", packed.getvalue(), "application/zip"))]


def symlink_entry(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def part(name, content=b"x"):
    return ("files", (name, content, "application/octet-stream"))


def rows(peft):
    good = {name: content for _, (name, content, _) in peft.files()}
    config = peft.config

    def conf(**changes):
        return peft.files(config={**config, **changes})

    def raw_conf(raw):
        return peft.files(config=raw)

    def raw_weights(raw):
        return peft.files(weights=raw)

    def tensors(change):
        found = peft.tensors()
        change(found)
        return peft.files(weights=peft.safetensors(found))

    def header(change):
        def lie(entries):
            change(entries)
            return json.dumps(entries).encode()

        return peft.files(weights=peft.safetensors(peft.tensors(), lie))

    def zip_with(*extra):
        return zipped([*good.items(), *extra])

    def put(name, value):
        return tensors(lambda t: t.__setitem__(name, value))

    whole = peft.safetensors(peft.tensors())
    huge = struct.pack("<Q", 1 << 63) + whole[8:]
    nan, inf, big = (np.full((4, 32), v, np.float32) for v in (np.nan, np.inf, 1e6))
    bomb = zipped([("adapter_config.json", good["adapter_config.json"]), (WEIGHTS, b"\0" * (20 << 20))],
                  compression=zipfile.ZIP_DEFLATED)  # fmt: skip
    yield from [
        (53, "zip slip", zip_with(("../x", b"x")), 422, "archive_path"),
        (53, "zip absolute", zip_with(("/etc/x", b"x")), 422, "archive_path"),
        (53, "zip drive", zip_with(("C:\\x", b"x")), 422, None),
        (53, "zip deep", zip_with(("a/" * 300 + "x", b"x")), 422, None),
        (53, "part with a path", [*peft.files(), part("../x")], 422, "archive_path"),
        (54, "zip symlink", zip_with((symlink_entry("README.md"), b"/etc/passwd")), 422, None),
        (54, "a tar", [part("adapter.tar")], 422, "format_not_allowed"),
        (55, "zip bomb", bomb, 422, None),
        (55, "nested zip", zip_with(("inner.zip", zipped(good.items())[0][1][1])), 422, None),
        (55, "many entries", zip_with(*((f"f{i}", b"") for i in range(200))), 422, None),
        (55, "not a zip", [part("adapter.zip", b"PK\x03\x04nonsense")], 422, None),
        (56, "two of one name", [*peft.files(), part(WEIGHTS)], 422, "duplicate_file"),
        (56, "case collision", [*peft.files(), part("Adapter_Config.json")], 422, "format_not_allowed"),
        (57, "a .bin", [part("adapter_model.bin")], 422, "format_not_allowed"),
        (57, "a .py beside", [*peft.files(), part("setup.py")], 422, "format_not_allowed"),
        (57, "a pickle renamed", raw_weights(b"\x80\x04\x95\x00" + b"." * 64), 422, None),
        (58, "only the config", peft.files()[:1], 400, "missing_file"),
        (59, "0 bytes", raw_weights(b""), 422, "safetensors_header"),
        (59, "7 bytes", raw_weights(whole[:7]), 422, "safetensors_header"),
        (59, "header of 0", raw_weights(struct.pack("<Q", 0) + whole[8:]), 422, "safetensors_header"),
        (
            59,
            "header past the end",
            raw_weights(struct.pack("<Q", len(whole)) + whole[8:]),
            422,
            "safetensors_header",
        ),
        (59, "header of 2^63", raw_weights(huge), 422, "safetensors_header"),
        (60, "trailing data", raw_weights(whole + b"x"), 422, "safetensors_header"),
        (60, "truncated", raw_weights(whole[:-1]), 422, "safetensors_header"),
        (60, "begin past end", header(lambda e: e[Q].update(data_offsets=[512, 0])), 422, "safetensors_header"),
        (60, "shape × dtype", header(lambda e: e[Q].update(shape=[4, 31])), 422, "safetensors_header"),
        (60, "negative dim", header(lambda e: e[Q].update(shape=[-4, -32])), 422, "safetensors_header"),
        (60, "overflowing dims", header(lambda e: e[Q].update(shape=[1 << 40, 1 << 40])), 422, "safetensors_header"),
        (60, "overlap", header(lambda e: e[QB].update(data_offsets=e[Q]["data_offsets"])), 422, "safetensors_header"),
        (61, "duplicate tensor", raw_weights(_duplicate(whole)), 422, None),
        (61, "hostile name", put("../x", np.zeros((1, 1), np.float32)), 422, None),
        (61, "zero-size", put(Q, np.zeros((0, 32), np.float32)), 422, None),
        (62, "int8", put(Q, np.zeros((4, 32), np.int8)), 422, "dtype_unsupported"),
        (63, "NaN", put(Q, nan), 422, "value_out_of_range"),
        (63, "Inf", put(Q, inf), 422, "value_out_of_range"),
        (63, "1e6", put(Q, big), 422, "value_out_of_range"),
        (64, "A without B", tensors(lambda t: t.pop(QB)), 422, "tensor_missing"),
        (64, "rank differs", put(Q, np.ones((8, 32), np.float32)), 422, "rank_mismatch"),
        (64, "layer 9", put(Q.replace("layers.0", "layers.9"), np.ones((4, 32), np.float32)), 422, None),
        (
            64,
            "unknown module",
            put(Q.replace("q_proj", "z_proj"), np.ones((4, 32), np.float32)),
            422,
            "unknown_module",
        ),
        (65, "another base's shape", put(Q, np.ones((4, 64), np.float32)), 422, "base_mismatch"),
        *[(66, f"r {r}", conf(r=r), 422, None) for r in (0, -5, 1.5, 10**9, True, "4")],
        *[(66, f"alpha {a}", conf(lora_alpha=a), 422, None) for a in (0, -1, 1e30)],
        (67, "modules_to_save", conf(modules_to_save=["embed_tokens"]), 422, "feature_unsupported"),
        (67, "DoRA", conf(use_dora=True), 422, "feature_unsupported"),
        (67, "bias", conf(bias="all"), 422, "feature_unsupported"),
        (67, "lm_head", conf(target_modules=["q_proj", "v_proj", "lm_head"]), 422, None),
        (68, "megatron_core", conf(megatron_core="os"), 422, None),
        (68, "auto_map", conf(auto_map={"x": "y"}), 422, None),
        (68, "trust_remote_code", conf(trust_remote_code=True), 422, None),
        (69, "huge config", raw_conf(json.dumps({**config, "x": "y" * 70_000}).encode()), 422, None),
        (69, "deep config", raw_conf(b'{"peft_type":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), 422, None),
        (69, "duplicate keys", raw_conf(b'{"r": 1,' + json.dumps(config).encode()[1:]), 422, None),
        (69, "BOM", raw_conf(b"\xef\xbb\xbf" + json.dumps(config).encode()), 422, None),
        (69, "UTF-16", raw_conf(json.dumps(config).encode("utf-16")), 422, None),
        (69, "NaN", raw_conf(json.dumps({**config, "lora_alpha": float("nan")}).encode()), 422, None),
    ]


def _duplicate(whole):
    """The first tensor's entry twice in the header."""
    size = struct.unpack("<Q", whole[:8])[0]
    raw = whole[8 : 8 + size]
    entries = json.loads(raw)
    name = next(iter(entries))
    doubled = b"{" + json.dumps(name).encode() + b":" + json.dumps(entries[name]).encode() + b"," + raw[1:]
    return struct.pack("<Q", len(doubled)) + doubled + whole[8 + size :]


@pytest.fixture(scope="module")
def answers(api, peft):
    def send(numbered):
        i, (row, name, files, status, code) = numbered
        return name, row, api.post(f"/api/v1/adapters/bad-{i}/versions", files=files), status, code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(send, enumerate(rows(peft))))


def test_every_row_gets_its_answer(answers):
    wrong = []
    for name, row, reply, status, code in answers:
        error = reply.json().get("error", {})
        codes = {error.get("code")}
        if "problems" in error:
            codes |= problems_of(reply.content)
        if reply.status_code != status or (code is not None and code not in codes):
            wrong.append((row, name, reply.status_code, sorted(map(str, codes)), error.get("message")))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(answers) > 60


def test_rejections_say_no_path_and_stay_short(answers, live):
    for name, _, reply, _, _ in answers:
        assert str(live.settings.data_dir) not in reply.text, name
        assert "Traceback" not in reply.text, name
        assert len(reply.json()["error"]["message"]) <= 1024, name


def test_a_rejected_version_is_kept_with_its_report_and_never_answers(api, peft):
    refused = api.post(
        "/api/v1/adapters/refused/versions", files=peft.files(config={**peft.config, "use_dora": True, "r": 0})
    )
    assert refused.status_code == 422
    problems = refused.json()["error"]["problems"]
    assert len(problems) >= 2, "all problems at once"
    version = api.get("/api/v1/adapters/refused/versions/1").json()
    assert version["state"] == "rejected"
    assert version["report"]["problems"] == problems
    path = "/api/v1/adapters/refused/aliases/default"
    assert api.put(path, json={"version": 1}).json()["error"]["code"] == "version_rejected"
    body = {"model": "refused", "prompt": "x"}
    assert api.post("/v1/completions", json=body).json()["error"]["code"] == "model_not_found"
    assert list(api.get("/v1/models").json()["data"]) == [api.get("/v1/models/base").json()]


def test_58_declared_digests(api, peft):
    url = "/api/v1/adapters/digests/versions"
    wrong = api.post(url, files=peft.files(), data={"sha256": "0" * 64})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "digest_mismatch")
    malformed = api.post(url, files=peft.files(), data={"sha256": "xyz"})
    assert malformed.status_code == 400
    header = api.post(url, files=peft.files(), headers={"content-digest": "sha-256=:AAAA:"})
    assert (header.status_code, header.json()["error"]["code"]) == (400, "digest_mismatch")
    right = hashlib.sha256(peft.safetensors(peft.tensors())).hexdigest()
    assert api.post(url, files=peft.files(), data={"sha256": right}).status_code == 201


def test_58_cut_short(api, peft):
    request = api.build_request("POST", "/api/v1/adapters/cut/versions", files=peft.files())
    body = request.read()[:-40]
    headers = {"content-type": request.headers["content-type"]}
    reply = api.post("/api/v1/adapters/cut/versions", content=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "malformed_multipart")
    assert api.get("/api/v1/adapters/cut").status_code == 404, "nothing was made for what never arrived"


def test_16_uploads_take_no_idempotency_key(api, peft):
    reply = api.post("/api/v1/adapters/idem/versions", files=peft.files(), headers={"idempotency-key": "k"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "idempotency_unsupported")


def test_media_type(api):
    assert api.post("/api/v1/adapters/media/versions", json={}).status_code == 415


NAMES = ["n" * 64, "Upper", "<script>", "a'b", "a\u202eb", "b\u0430se", "-x", "a b", ""]


@pytest.mark.parametrize("name", NAMES)
def test_71_names(api, peft, name):
    made = api.post("/api/v1/adapters", json={"name": name})
    assert (made.status_code, made.json()["error"]["param"]) == (400, "name")


def test_71_the_base_models_name_is_taken(api, peft):
    assert api.post("/api/v1/adapters", json={"name": "base"}).json()["error"]["code"] == "name_reserved"
    assert api.post("/api/v1/adapters/base/versions", files=peft.files()).json()["error"]["code"] == "name_reserved"


@pytest.mark.parametrize("name", ["UPPER", "n" * 64])
def test_71_names_in_the_path(api, peft, name):
    assert api.post(f"/api/v1/adapters/{name}/versions", files=peft.files()).status_code == 400


def test_no_blob_of_a_rejected_upload_is_stored(api, answers, live):
    stored = {path.name.removesuffix(".adapter") for path in live.settings.blob_dir.glob("*")}
    versions = [api.get(f"/api/v1/adapters/{n}/versions").json()["data"] for n in ("digests",)]
    assert stored == {v["digest"] for page in versions for v in page}
    assert list((live.settings.data_dir / "quarantine").iterdir()) == []


async def test_an_upload_that_stands_still_is_given_up(tmp_path, monkeypatch):
    import asyncio

    from tenantry.platform.core.errors import BodyTimedOut
    from tenantry.platform.registry import upload

    async def silent():
        yield b"--x\r\n"
        await asyncio.sleep(60)

    monkeypatch.setattr(upload, "IDLE_S", 0.05)
    with pytest.raises(BodyTimedOut):
        await upload.receive(silent(), "multipart/form-data; boundary=x", None, tmp_path, 1 << 20)


async def test_an_upload_is_capped_while_it_arrives(tmp_path):
    from tenantry.platform.core.errors import PayloadTooLarge
    from tenantry.platform.registry import upload

    sent = []

    async def endless():
        yield (
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="adapter_model.safetensors"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n"
        )
        while True:
            sent.append(1)
            yield b"y" * 1000

    with pytest.raises(PayloadTooLarge):
        await upload.receive(endless(), "multipart/form-data; boundary=x", None, tmp_path, 10_000)
    assert len(sent) < 15
