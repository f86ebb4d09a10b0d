"""Ties a worker's life to its parent's, and turns signals into a state that the loop reads.

Owns signal handlers and the watch on standard input. It must not know what the process does.
"""

import ctypes
import os
import signal
import stat
import sys
import threading
import time
from typing import Final

PR_SET_PDEATHSIG: Final = 1
ORPHAN_GRACE_S: Final = 2.0
EXIT_ORPHAN: Final = 70


class Lifeline:
    """draining: SIGTERM or SIGINT came: finish what runs. ending: a second one came, or the parent is gone: stop now.

    The parent is known to be gone when standard input, if it is a pipe or a socket, ends. A process that does not
    stop by itself ORPHAN_GRACE_S later, because its step hangs, is ended.
    """

    def __init__(self) -> None:
        self.draining_since: float | None = None
        self.ending = False

    @property
    def draining(self) -> bool:
        return self.draining_since is not None or self.ending

    def hold(self) -> None:
        """Install everything; call it once, from the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if sys.platform == "linux":  # a second line: also when somebody else holds our standard input open
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        mode = os.fstat(0).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            threading.Thread(target=self._watch_parent, name="lifeline", daemon=True).start()

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.draining_since is not None:
            self.ending = True
        else:
            self.draining_since = time.monotonic()

    def _watch_parent(self) -> None:
        while os.read(0, 4096):
            pass
        self.ending = True
        time.sleep(ORPHAN_GRACE_S)
        os._exit(EXIT_ORPHAN)
