"""What each engine most likely still has: prefixes and sessions, learned from what was sent there. Pure.

Owns bounded memories that may be wrong at any time: a hint chooses an engine and nothing else, so a stale one costs
a recomputation. A foreign one cannot exist: every key begins with the request's namespace (law 2: Namespace.key, of
tenant scope and weights), which the first block's digest covers, and each later one covers the one before.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from tenantry.runtime.messages import Submit

BLOCK_TOKENS = 32  # a prefix is known in steps of so many tokens
MOST_BLOCKS = 1 << 15  # of one engine: a million tokens, or 64 adapters' system prompts many times over
MOST_SESSIONS = 1 << 14
_BLOCK_BYTES = BLOCK_TOKENS * array("I").itemsize
_PERSON = b"tenantry-hint"


def blocks(namespace: bytes, tokens: Sequence[int]) -> Iterator[bytes]:
    """Digests of the prompt's whole blocks, each covering the namespace and all tokens up to its end."""
    data, last = array("I", tokens).tobytes(), namespace
    for end in range(_BLOCK_BYTES, len(data) + 1, _BLOCK_BYTES):
        last = blake2b(last + data[end - _BLOCK_BYTES : end], digest_size=32, person=_PERSON).digest()
        yield last


class EngineHints:
    """Of one engine, in one life of it. The least recently used go first."""

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        self._most = most
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def known(self, prompt: Sequence[bytes]) -> int:
        """How many tokens at the beginning of a prompt (its blocks()) the engine has seen before."""
        count = 0
        for block in prompt:
            if block not in self._blocks:
                break
            count += 1
        return count * BLOCK_TOKENS

    def learn(self, prompt: Sequence[bytes]) -> None:
        """A prompt was sent there. Its beginning is younger than its end, for prefixes are what is shared."""
        for block in reversed(prompt):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        """The engine was restarted: whatever it had is gone."""
        self._blocks.clear()


class Sessions:
    """Which engine a session was last served by. Keys are (namespace, session): a tenant's own, whatever it chose."""

    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._engines: OrderedDict[tuple[bytes, bytes], str] = OrderedDict()

    def engine(self, submit: Submit) -> str | None:
        return self._engines.get((submit.namespace, submit.session)) if submit.session else None

    def served(self, submit: Submit, engine: str) -> None:
        if submit.session:
            key = submit.namespace, submit.session
            self._engines[key] = engine
            self._engines.move_to_end(key)
            while len(self._engines) > self._most:
                self._engines.popitem(last=False)

    def forget(self, engine: str) -> None:
        """Restarted: its sessions go wherever they fit."""
        for key in [key for key, served in self._engines.items() if served == engine]:
            del self._engines[key]
