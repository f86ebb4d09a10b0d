"""One live gateway per test module; uploads go through the real validator process."""

import io
import json
import struct

import httpx
import numpy as np
import pytest

from tenantry.platform.testing import SPEC, GatewayThread, cloned_database

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


class Peft:
    """What PEFT would have saved for the test's base model: rank 4 on q_proj and v_proj of both layers."""

    config = CONFIG

    @staticmethod
    def tensors(rank=4, seed=0):
        draw = np.random.default_rng(seed)
        found = {}
        for layer in range(SPEC.layers):
            for module in ("q_proj", "v_proj"):
                out, width = SPEC.shape(module)
                at = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                found[f"{at}.lora_A.weight"] = draw.standard_normal((rank, width)).astype(np.float32)
                found[f"{at}.lora_B.weight"] = draw.standard_normal((out, rank)).astype(np.float32)
        return found

    @staticmethod
    def safetensors(tensors, header=None):
        """The format written out by hand, so that every lie can be told in it."""
        entries, data = {}, io.BytesIO()
        for name, array in tensors.items():
            start = data.tell()
            data.write(array.tobytes())
            kind = {"float32": "F32", "float16": "F16", "int8": "I8", "uint64": "U64"}[array.dtype.name]
            entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, data.tell()]}
        raw = json.dumps(entries).encode() if header is None else header(entries)
        return struct.pack("<Q", len(raw)) + raw + data.getvalue()

    @classmethod
    def files(cls, config=None, weights=None, seed=0):
        config = (
            json.dumps(cls.config if config is None else config).encode() if not isinstance(config, bytes) else config
        )
        weights = cls.safetensors(cls.tensors(seed=seed)) if weights is None else weights
        return [
            ("files", ("adapter_config.json", config, "application/json")),
            ("files", ("adapter_model.safetensors", weights, "application/octet-stream")),
        ]


@pytest.fixture(scope="session")
def peft():
    return Peft


@pytest.fixture(scope="module")
def live(request, postgres, tmp_path_factory):
    options = getattr(request.module, "GATEWAY", {})
    with (
        cloned_database(postgres, "tenantry_template") as dsn,
        GatewayThread(dsn, tmp_path_factory.mktemp("data"), **options) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def make_client(live):
    """A client of a new tenant."""
    opened = []

    def make(name):
        tenant_id, key = live.make_tenant(name)
        client = httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=60)
        client.tenant_id = tenant_id
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture(scope="module")
def api(make_client):
    return make_client("acme")
