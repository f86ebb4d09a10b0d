"""Laws of the command line: every command explains itself, names are data, failures are one line."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from tenantry.platform.cli import demo, model, output, rest, stack
from tenantry.platform.cli.connection import Connection
from tenantry.platform.cli.main import app
from tenantry.platform.core import settings
from tenantry.platform.core.errors import ConfigurationError


def tenantry(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tenantry.platform.cli", *arguments]
    env = {**{k: v for k, v in settings.to_environment(settings.Settings()).items() if "TENANTRY" not in k}}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**env, **environment})


def commands(node: App, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name in node:
        if name.startswith("-"):
            continue
        child = node[name]
        below = commands(child, (*path, name))
        found += below or [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(app), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], capsys):
    app([*path, "--help"], exit_on_error=False, result_action="return_value")
    assert f"Example: tenantry {' '.join(path)}" in capsys.readouterr().out


def test_all_promised_commands_exist():
    top = {path[0] for path in commands(app)}
    assert {"serve", "demo", "tenant", "key", "adapter", "usage", "migrate", "doctor"} <= top


def test_a_name_full_of_markup_is_printed_as_it_is(capsys):
    output.show_table([{"name": "[red]<script>[/red]"}], [("name", "name")])
    assert "[red]<script>[/red]" in capsys.readouterr().out


def test_nothing_but_json_reaches_standard_output_with_json(tmp_path):
    done = tenantry("doctor", "--data-dir", str(tmp_path / "d"), "--json", TENANTRY_PORT="0")
    assert {row["check"] for row in json.loads(done.stdout)} >= {"data directory", "disk", "database", "port"}


def test_a_busy_port_is_one_clear_line_and_exit_78(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = tenantry("serve", "--demo", "--data-dir", str(tmp_path / "d"), "--port", str(port))
    assert done.returncode == 78
    assert len(done.stderr.strip().splitlines()) == 1
    assert "TENANTRY_PORT" in done.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("value", ["no-such-setting", "TENANTRY_PROT"])
def test_an_unknown_setting_stops_the_start(value: str, tmp_path):
    done = tenantry("serve", "--demo", "--data-dir", str(tmp_path / "d"), TENANTRY_PROT=value)
    assert done.returncode == 78
    assert "TENANTRY_PROT is not a known setting" in done.stderr


def test_client_commands_read_the_clients_environment_and_servers_ignore_it():
    assert settings.load({"TENANTRY_URL": "http://x", "TENANTRY_API_KEY": "k"}).port == 8080


def test_settings_survive_the_way_to_a_child(tmp_path):
    chosen = settings.Settings(data_dir=tmp_path, port=1234, model_name="a/b", engine_socket="ipc:///x/y")
    assert settings.load(settings.to_environment(chosen)) == chosen


def test_a_missing_server_is_one_line(tmp_path):
    done = tenantry("tenant", "list", "--data-dir", str(tmp_path))
    assert done.returncode == 69
    assert "tenantry serve" in done.stderr


def test_a_curl_line_survives_every_quote():
    line = demo.curl_line("http://h", "k", "m", 'it\'s "quoted" $HOME `x`\n')
    words = shlex.split(line)
    assert json.loads(words[-1])["messages"][0]["content"] == 'it\'s "quoted" $HOME `x`\n'


def test_a_refused_adapter_shows_every_problem():
    import httpx

    problems = [
        {"code": "feature_unsupported", "message": "DoRA", "subject": "use_dora"},
        {"code": "base_mismatch", "message": "shape", "subject": "q"},
    ]
    error = {"message": "The adapter was refused.", "code": "adapter_invalid", "param": None, "problems": problems}
    text = rest.explain(httpx.Response(422, json={"error": error}))
    assert "use_dora" in text
    assert "base_mismatch" in text


def test_a_long_data_directory_still_gets_a_socket(tmp_path):
    long = tmp_path / ("x" * 120)
    assert len(str(stack.socket_path(long))) <= 100
    assert stack.socket_path(long) != stack.socket_path(tmp_path / ("y" * 120))


def test_the_models_digest_is_remembered_until_a_file_changes(tmp_path):
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"abc")
    first = stack.cached_digest(model, tmp_path)
    assert stack.cached_digest(model, tmp_path) == first
    (model / "model.safetensors").write_bytes(b"abcd")
    assert stack.cached_digest(model, tmp_path) != first


def test_the_context_is_the_models_own_unless_less_is_asked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048, "sliding_window": 512}')
    assert model.choose_context(None, tmp_path, 1 << 20) == 2048
    assert model.choose_context(None, tmp_path, 1024) == 1024
    assert model.choose_context(100, tmp_path, 1024) == 100
    with pytest.raises(ConfigurationError, match="TENANTRY_MAX_CONTEXT"):
        model.choose_context(4096, tmp_path, 1 << 20)
    (tmp_path / "config.json").write_text(
        '{"model_type": "mistral", "max_position_embeddings": 2048, "sliding_window": 512}'
    )
    assert model.choose_context(None, tmp_path, 1 << 20) == 512


def test_flags_beat_the_servers_own_address(tmp_path):
    (tmp_path / "address.json").write_text(json.dumps({"base_url": "http://local"}))
    assert Connection(data_dir=tmp_path).address() == "http://local"
    assert Connection(data_dir=tmp_path, url="http://given").address() == "http://given"


def test_the_demo_names_adapters_that_exist():
    described = demo.read_demo()
    names = [[a.name for a in t.adapters] for t in described.tenants]
    assert set(names[0]) & set(names[1]), "two tenants share an adapter's name"
    for tenant in described.tenants:
        for adapter in tenant.adapters:
            assert Path(demo.FOLDER / adapter.path / "adapter_config.json").is_file()
