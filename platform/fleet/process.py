"""One child process: started in its own session, read line by line, ended politely and then not.

Owns the process id and its pipes. It must not know what the child does.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LineHandler = Callable[[str], None]


class Child:
    """A running child. Its own session keeps the terminal's Ctrl-C from reaching it: the parent decides the order
    in which things stop. Its standard input is a pipe that closes when this process dies, however it dies."""

    def __init__(self, process: asyncio.subprocess.Process, on_line: LineHandler) -> None:
        self._process = process
        self._reader = asyncio.create_task(self._read(on_line))

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        on_line: LineHandler,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> "Child":
        """env: the whole environment of the child; None inherits. on_line: called for each line it prints.
        log: the file that its standard error is appended to; None inherits ours."""
        with contextlib.ExitStack() as stack:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None if log is None else stack.enter_context(log.open("ab")),
                env=env,
                start_new_session=True,
                limit=1 << 20,
            )
        return cls(process, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """The exit status, after everything it printed was handled."""
        status = await self._process.wait()
        await asyncio.wait([self._reader], timeout=5.0)
        return status

    async def stop(self, grace: float) -> int:
        """SIGTERM, `grace` seconds to finish, then SIGKILL. Returns the exit status."""
        self._signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.wait(), grace)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """SIGKILL to the child and to whatever it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return await self.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self, on_line: LineHandler) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            on_line(line.decode("utf-8", "replace").rstrip("\n"))
