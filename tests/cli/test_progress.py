"""A start that takes long is seen to go on, on a terminal and in a log."""

import pytest
from rich.console import Console

from tenantry.platform.cli import progress as room
from tenantry.platform.cli.progress import STILL_S, Progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def said(monkeypatch, capsys, terminal):
    monkeypatch.setattr(room, "err", Console(stderr=True, force_terminal=terminal, highlight=False, width=80))
    return lambda: capsys.readouterr().err.splitlines()


def test_a_log_tells_each_step_once_and_now_and_then_that_one_still_runs(monkeypatch, capsys, clock):
    lines = said(monkeypatch, capsys, terminal=False)
    with Progress(clock) as progress:
        progress.tick()
        progress.say("engine: kernels (attention) 2/8")
        progress.say("engine: kernels (attention) 2/8")
        for _ in range(25):
            clock.now += 1
            progress.tick()
        progress.say("engine: kernels 8/8")
        clock.now += STILL_S - 1
        progress.tick()
        progress.end()
        clock.now += STILL_S
        progress.tick()
    assert lines() == [
        "engine: kernels (attention) 2/8",
        "engine: kernels (attention) 2/8, 10 s",
        "engine: kernels (attention) 2/8, 20 s",
        "engine: kernels 8/8",
    ]


def test_a_terminal_shows_the_seconds_of_the_start_and_a_line_is_no_markup(monkeypatch, capsys, clock):
    said(monkeypatch, capsys, terminal=True)
    shown = []
    with Progress(clock) as progress:
        monkeypatch.setattr(progress._status, "update", shown.append)
        progress.say("engine: [red]weights[/red] 1/4")
        clock.now += 7
        progress.tick()
    assert shown == [
        "engine: \\[red]weights\\[/red] 1/4 [dim]0 s[/dim]", "engine: \\[red]weights\\[/red] 1/4 [dim]7 s[/dim]",
    ]  # fmt: skip
