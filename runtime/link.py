"""The wire between the gateway's client and the worker: zmq over a unix socket, msgpack in length-capped frames.

Owns framing, fencing and the server's socket. A message is two frames, [epoch, body]: the epoch names one life of
the engine, so that what was meant for, or comes from, another life is recognised. It must not know requests.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import zmq

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.messages import MAX_FRAME_BYTES, Command, Events, Ping, Pong

_QUEUE: Final = 4096  # frames that may wait for one client; an engine makes one per step
_INBOX: Final = 1024

_commands = msgspec.msgpack.Decoder(Command)
_events = msgspec.msgpack.Decoder(Events)
_encode = msgspec.msgpack.Encoder().encode

Client = bytes
BEAT_S: Final = 0.5


def beat_address(socket: str) -> str:
    """Where the worker of this socket publishes its pulse."""
    return f"{socket}.beat"


class Heartbeat:
    """The worker's pulse, from a thread and a socket of its own: a step that takes many seconds on a slow machine is
    then not taken for death. `snapshot` gives the newest finished step's answer and must be safe to call anywhere."""

    def __init__(self, socket: str, epoch: str, snapshot: Callable[[], Pong]) -> None:
        self._path = Path(beat_address(socket).removeprefix("ipc://"))
        self._stop = threading.Event()
        self._context = zmq.Context(io_threads=1)
        publisher = self._context.socket(zmq.PUB)
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.setsockopt(zmq.SNDHWM, 4)  # an old pulse is worth nothing
        before = os.umask(0o177)
        try:
            publisher.bind(beat_address(socket))
        finally:
            os.umask(before)
        arguments = (publisher, epoch.encode(), snapshot)
        self._thread = threading.Thread(target=self._beat, args=arguments, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.term()
        self._path.unlink(missing_ok=True)

    def _beat(self, publisher: "zmq.Socket[bytes]", epoch: bytes, snapshot: Callable[[], Pong]) -> None:
        while not self._stop.wait(BEAT_S):
            publisher.send_multipart([epoch, _encode(Events((snapshot(),)))])
        publisher.close()


def pack(message: Command | Events) -> bytes:
    """Raises InvalidRequest for a message longer than the other side accepts."""
    body = _encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise InvalidRequest("prompt", f"a message holds at most {MAX_FRAME_BYTES} bytes")
    return body


def unpack_events(body: bytes) -> Events:
    """Raises msgspec.DecodeError."""
    return _events.decode(body)


class ServerLink:
    """The worker's end. socket: ipc://PATH, reachable by this user alone. dropped: counts of frames, by why."""

    def __init__(self, socket: str, epoch: str) -> None:
        path = Path(socket.removeprefix("ipc://"))
        if not socket.startswith("ipc://") or not path.is_absolute():
            raise InvalidRequest("socket", "must be ipc:// and an absolute path")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._epoch = path, epoch.encode()
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUE)
        self._socket.setsockopt(zmq.RCVHWM, _INBOX)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.dropped: Counter[str] = Counter()
        before = os.umask(0o177)
        try:
            self._socket.bind(socket)
        except zmq.ZMQError as error:
            raise InvalidRequest("socket", f"cannot listen: {error}") from error
        finally:
            os.umask(before)

    def receive(self, timeout_ms: int, limit: int = 256) -> Iterator[tuple[Client, Command, bool]]:
        """Waits that long for a first command, then takes what is there, at most `limit`. Each comes with whether it
        was meant for this life of the engine. Malformed messages are dropped and counted."""
        if timeout_ms and not self._socket.poll(timeout_ms):
            return
        for _ in range(limit):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(frames) != 3:
                self.dropped["frames"] += 1
                continue
            client, epoch, body = frames
            try:
                command = _commands.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.dropped["malformed"] += 1
                continue
            yield client, command, epoch == self._epoch or isinstance(command, Ping)

    def send(self, client: Client, events: Events) -> bool:
        """False if the client is gone, or so far behind that it must be given up."""
        try:
            self._socket.send_multipart([client, self._epoch, _encode(events)], zmq.NOBLOCK, copy=True)
        except zmq.Again:
            self.dropped["slow_client"] += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.dropped["gone_client"] += 1
            return False
        return True

    def close(self, linger_ms: int = 1000) -> None:
        """Give what was sent that long to leave, then remove the socket."""
        self._socket.close(linger_ms)
        self._context.term()
        self._path.unlink(missing_ok=True)
