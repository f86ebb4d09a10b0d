"""Configuration: one frozen object, read once. The only file that reads the environment.

Every key is TENANTRY_<FIELD NAME>. A bad or unknown key stops the start with one line that names it.
Secrets never have defaults: see secrets.py, which makes them in the data directory.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tenantry.platform.core import money
from tenantry.platform.core.errors import ConfigurationError

PREFIX = "TENANTRY_"
ROLES = ("both", "prefill", "decode")
MOST_ENGINES = 8
CLIENT_KEYS = ("url", "api_key")  # read by the command line's client commands, ignored by the server


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(f"must be a number from {low} to {high}")
        return float(text)

    return parse


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("must be a path")
    return Path(text).expanduser().absolute()


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
        raise ValueError("must look like postgresql://user@host/database")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.:-]{1,253}", text, re.ASCII):
        raise ValueError("must be a host name or an address")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,199}", text, re.ASCII):
        raise ValueError("must be a name of letters, digits, dots, dashes and slashes")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
        raise ValueError("must be 64 hex digits")
    return text


def _socket(text: str) -> str:
    if not re.fullmatch(r"ipc:///[^\0]{1,100}", text):
        raise ValueError("must be ipc:// and an absolute path of at most 100 characters")
    return text


def _currency(text: str) -> str:
    if text not in money.CURRENCIES:
        raise ValueError("must be a currency's code by ISO 4217, such as USD, EUR or JPY")
    return text


def _support(text: str) -> str:
    if not re.fullmatch(r"[^\s@<>\"]{1,100}@[^\s@<>\"]{1,100}|https?://[^\s<>\"]{1,200}", text, re.ASCII):
        raise ValueError("must be a mail address, or a link that begins with https://")
    return text


def _weights(text: str) -> str:
    for part in filter(None, text.split(",")):
        name, _, weight = part.rpartition("=")
        if not name or not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", weight, re.ASCII) or not float(weight) >= 0.001:
            raise ValueError("must look like acme=4,beta=0.5: names of tenants and numbers from 0.001 to 999")
    return text


def _roles(text: str) -> str:
    words = text.split(",")
    if not 1 <= len(words) <= MOST_ENGINES or not set(words) <= set(ROLES):
        raise ValueError(f"must be 1 to {MOST_ENGINES} of {', '.join(ROLES)}, with commas between")
    if ("prefill" in words) != ("decode" in words):
        raise ValueError("prefill needs decode beside it, and decode prefill")
    return text


def _setting(default: Any, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"parse": parse})


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """Where one engine of the fleet is found. role: one of ROLES. journal: the directory that it alone writes."""

    name: str
    role: Literal["both", "prefill", "decode"]
    socket: str
    journal: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are seconds, sizes bytes. database_url: None starts an embedded PostgreSQL under data_dir.

    owner_database_url: the role that migrates (DDL); needed only beside an external database_url.
    environment: the only kind of API key this gateway accepts. price_*_nano: per token, for a base model that has no
    price yet. control_tokens: whether prompts sent as token ids may hold special tokens.
    max_context: tokens of prompt and completion together; None takes what the model was trained for.
    itl_target_ms, policy, batch_delay_ms: see runtime.config.ScheduleConfig. start_deadline: a request that could not
    start within it is refused. tenant_weights: "name=weight,...": shares of the engine, 1 for who is not named.
    memory, memory_bytes: whether KV and adapters share one memory, and how large it is; 0 leaves it to the engine.
    weights, adapter_dtype: how the engine holds the base model's matrices, and adapters.
    session_retention: how long after its last turn a conversation or response is remembered. session_keep: how long
    the KV of a session is kept for its next turn, unless a request says otherwise.
    host_cache_bytes, disk_cache_bytes: KV that the engine keeps below its pages, at most disk_tenant_bytes of one
    tenant on disk (0: no such limit), in disk_cache_dir, or data_dir's own. memory_pressure: see
    runtime.config.EngineConfig. tenant_kv_min, tenant_kv_max: cached pages of one tenant, see
    runtime.config.CacheConfig.
    console_dir: the built console; None takes the checkout's. cookie_secure: on where browsers come over https.
    currency: what all money here is in (ISO 4217); nothing is converted. support: whom a tenant asks for more, a mail
    address or a link; None says "the operator".
    roles: one engine process for each word; engines: so many of "both" instead.
    model_digest (hex), engine_socket: what `tenantry serve` tells the gateway that it starts; see `fleet`.
    """

    data_dir: Path = _setting(Path(".data"), _path)
    database_url: str | None = _setting(None, _url)
    owner_database_url: str | None = _setting(None, _url)
    pepper_file: Path | None = _setting(None, _path)
    environment: Literal["live", "test"] = _setting("live", _choice("live", "test"))
    host: str = _setting("127.0.0.1", _host)
    port: int = _setting(8080, _integer(0, 65535))
    model_dir: Path | None = _setting(None, _path)
    model_name: str | None = _setting(None, _name)
    model_digest: str | None = _setting(None, _digest)
    engine_socket: str | None = _setting(None, _socket)
    roles: str = _setting("both", _roles)
    engines: int = _setting(1, _integer(1, MOST_ENGINES))
    max_context: int | None = _setting(None, _integer(16, 1 << 24))
    weights: Literal["native", "w8a16", "w8a8", "w4a16"] = _setting(
        "native", _choice("native", "w8a16", "w8a8", "w4a16")
    )
    memory: Literal["unified", "split"] = _setting("unified", _choice("unified", "split"))
    memory_bytes: int = _setting(0, _integer(0, 1 << 50))
    adapter_dtype: Literal["native", "int8"] = _setting("native", _choice("native", "int8"))
    itl_target_ms: float = _setting(0.0, _number(0, 60_000))
    policy: Literal["mixed", "prefill-first"] = _setting("mixed", _choice("mixed", "prefill-first"))
    batch_delay_ms: float = _setting(0.0, _number(0, 10))
    start_deadline: float = _setting(120.0, _number(0.1, 86_400))
    tenant_weights: str = _setting("", _weights)
    host_cache_bytes: int = _setting(1 << 30, _integer(0, 1 << 50))
    memory_pressure: float = _setting(0.95, _number(0, 1))
    disk_cache_bytes: int = _setting(0, _integer(0, 1 << 60))
    disk_tenant_bytes: int = _setting(0, _integer(0, 1 << 60))
    disk_cache_dir: Path | None = _setting(None, _path)
    tenant_kv_min: int = _setting(0, _integer(0, 1 << 30))
    tenant_kv_max: int = _setting(0, _integer(0, 1 << 30))
    log_level: str = _setting("info", _choice("debug", "info", "warning", "error"))
    log_format: Literal["json", "console"] = _setting("json", _choice("json", "console"))
    pool_size: int = _setting(16, _integer(2, 500))
    pool_wait: float = _setting(0.5, _number(0.01, 60))
    statement_timeout: float = _setting(5.0, _number(0.1, 600))
    auth_ttl: float = _setting(1.0, _number(0.0, 1.5))
    drain_timeout: float = _setting(30.0, _number(0, 3600))
    max_body_bytes: int = _setting(1 << 20, _integer(1024, 1 << 30))
    max_adapter_bytes: int = _setting(2 << 30, _integer(1024, 1 << 40))
    default_max_tokens: int = _setting(256, _integer(1, 1 << 20))
    price_prompt_nano: int = _setting(500, _integer(0, 10**12))
    price_cached_nano: int = _setting(50, _integer(0, 10**12))
    price_completion_nano: int = _setting(1500, _integer(0, 10**12))
    price_rejected_nano: int = _setting(0, _integer(0, 10**12))
    control_tokens: Literal["refuse", "allow"] = _setting("refuse", _choice("refuse", "allow"))
    session_retention: int = _setting(30 * 86400, _integer(60, 100 * 366 * 86400))
    session_keep: int = _setting(1800, _integer(0, 365 * 86400))
    console_dir: Path | None = _setting(None, _path)
    cookie_secure: Literal["off", "on"] = _setting("off", _choice("off", "on"))
    currency: str = _setting("USD", _currency)
    support: str | None = _setting(None, _support)

    @property
    def secrets_dir(self) -> Path:
        return self.data_dir / "secrets"

    @property
    def weights_by_tenant(self) -> dict[str, float]:
        parts = (part.rpartition("=") for part in self.tenant_weights.split(",") if part)
        return {name: float(weight) for name, _, weight in parts}

    @property
    def blob_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def kv_dir(self) -> Path:
        return self.disk_cache_dir or self.data_dir / "kv"

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def fleet(self) -> tuple[EnginePlace, ...]:
        """The engines, in order. A lone one is called "engine" and has the socket and the journal for itself.
        Raises ConfigurationError while engine_socket is unknown."""
        if self.engine_socket is None:
            raise ConfigurationError("the engines' socket is told by `tenantry serve`")
        roles: list[Any] = self.roles.split(",") if self.engines == 1 else ["both"] * self.engines
        if len(roles) == 1:
            return (EnginePlace("engine", roles[0], self.engine_socket, self.journal_dir),)
        names = [f"{'engine' if role == 'both' else role}-{index}" for index, role in enumerate(roles)]
        return tuple(
            EnginePlace(name, role, f"{self.engine_socket}.{index}", self.journal_dir / name)
            for index, (name, role) in enumerate(zip(names, roles, strict=True))
        )


def load(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, then `overrides` (command-line flags; text is parsed, None is skipped)."""
    source = os.environ if environment is None else environment
    parsers = {f.name: f.metadata["parse"] for f in fields(Settings)}
    given: dict[str, Any] = {k[len(PREFIX) :].lower(): v for k, v in source.items() if k.startswith(PREFIX)}
    for name in CLIENT_KEYS:
        given.pop(name, None)
    given.update({k: v for k, v in overrides.items() if v is not None})
    values: dict[str, Any] = {"data_dir": Path(".data").absolute()}
    for name, value in given.items():
        if name not in parsers:
            raise ConfigurationError(f"{PREFIX}{name.upper()} is not a known setting")
        try:
            values[name] = parsers[name](value) if isinstance(value, str) else value
        except ValueError as error:
            raise ConfigurationError(f"{PREFIX}{name.upper()} {error}") from None
    settings = Settings(**values)
    if settings.owner_database_url and not settings.database_url:
        raise ConfigurationError(f"{PREFIX}OWNER_DATABASE_URL needs {PREFIX}DATABASE_URL beside it")
    if settings.engines > 1 and settings.roles != "both":
        raise ConfigurationError(f"{PREFIX}ENGINES is for engines of the role both; {PREFIX}ROLES counts by itself")
    return settings


def client_value(name: Literal["url", "api_key"]) -> str | None:
    """TENANTRY_URL and TENANTRY_API_KEY: where the command line sends its requests, and as whom."""
    return os.environ.get(PREFIX + name.upper()) or None


def to_environment(settings: Settings, **changes: Any) -> dict[str, str]:
    """The environment of a child process that shall load the same settings, with `changes` to some of them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    values = {f.name: getattr(settings, f.name) for f in fields(Settings)} | changes
    return kept | {PREFIX + k.upper(): str(v) for k, v in values.items() if v is not None}
