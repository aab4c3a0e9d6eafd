"""One sealed TCP connection between the two data planes: records out, records in. Thin: it only moves bytes.

Nothing waits in the kernel that could wait here: TCP_NOTSENT_LOWAT keeps the unsent part of the socket's buffer short,
so a batch is sealed when the line can take it, and our own queue sees how long packets wait.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Iterator
from typing import Final

from . import frame, keys
from .buffers import Pool, Queue
from .liveness import Liveness

_NOTSENT_LOWAT: Final = 25  # TCP_NOTSENT_LOWAT in linux/tcp.h; the socket module lacks the name before 3.12
_UNSENT: Final = 128 << 10
_MOST_URGENT: Final = 64
_RECORD: Final = frame.RECORD.size + frame.LARGEST_SEALED
_RECEIVE: Final = 8 * _RECORD


class Closed(Exception):
    """The connection is over; the message says why."""


class Stream:
    """A data connection, after its preface has been exchanged."""

    def __init__(
        self, sock: socket.socket, sealer: keys.Sealer, opener: keys.Opener, pool: Pool, liveness: Liveness
    ) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT)
        with contextlib.suppress(OSError):  # where the kernel has no BBR, or keeps it from us, its default serves
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        self._sock = sock
        self.fd = sock.fileno()
        self.queue = Queue(pool)
        self.liveness = liveness
        self._waiting = False
        self._pool = pool
        self._sealer, self._opener = sealer, opener
        # A peer that sends probes and takes no echoes shall not fill our memory.
        self._urgent: deque[tuple[frame.Kind, bytes]] = deque(maxlen=_MOST_URGENT)
        self._record = memoryview(bytearray(_RECORD))
        self._unsent = self._record[:0]
        self._received = memoryview(bytearray(_RECEIVE))
        self._start = self._end = 0
        self._plain = memoryview(bytearray(frame.LARGEST_SEALED))

    def say(self, kind: frame.Kind, payload: bytes) -> None:
        """Send a probe or an echo before anything that waits."""
        self._urgent.append((kind, payload))

    def flush(self) -> bool:
        """Seal and send what waits; return whether nothing is left. Raise `Closed` when the connection is over."""
        while True:
            if not len(self._unsent) and not self._seal_next():
                return True
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                raise Closed(f"the data connection broke: {error.strerror}") from None
            self._unsent = self._unsent[sent:]

    def echoed(self, payload: bytes, now: float) -> None:
        """Take an echo."""
        self.liveness.echoed(payload, now)

    def watch_writable(self, epoll: select.epoll, *, wanted: bool) -> None:
        """Have the loop woken, or not, when the connection takes bytes again."""
        if wanted != self._waiting:
            self._waiting = wanted
            epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)

    def _seal_next(self) -> bool:
        if self._urgent:
            kind, payload = self._urgent.popleft()
            self._unsent = self._record[: self._sealer.seal(kind, payload, self._record)]
            return True
        if not len(self.queue):
            return False
        batch = self.queue.pop()
        length = self._sealer.seal(frame.Kind.DATA, batch.memory[: batch.length], self._record)
        self._unsent = self._record[:length]
        self._pool.give(batch)
        return True

    def receive(self) -> Iterator[tuple[int, memoryview]]:
        """Read once and yield what was sealed in each whole record: it is borrowed until the next one is asked for.

        Raise `Closed` at its end, also when a record is not the peer's: there is no resuming a stream.
        """
        try:
            count = self._sock.recv_into(self._received[self._end :])
        except BlockingIOError:
            return
        except OSError as error:
            raise Closed(f"the data connection broke: {error.strerror}") from None
        if not count:
            raise Closed("the peer closed the data connection")
        self._end += count
        try:
            yield from self._open_whole()
        except (frame.RemoteProtocolError, keys.NotAuthentic) as error:
            raise Closed(f"the data connection carried {error}") from None
        self._keep_rest()

    def _open_whole(self) -> Iterator[tuple[int, memoryview]]:
        while self._end - self._start >= frame.RECORD.size:
            header = frame.read_header(self._received, self._start)
            stop = self._start + frame.RECORD.size + header.length
            if stop > self._end:
                return
            length = self._opener.open(header, self._received[self._start : stop], self._plain)
            self._start = stop
            yield header.kind, self._plain[:length]

    def _keep_rest(self) -> None:
        rest = self._end - self._start
        if not rest or _RECEIVE - self._end < _RECORD:
            self._received[:rest] = self._received[self._start : self._end]
            self._start, self._end = 0, rest

    def close(self) -> None:
        """End it at once; what waited is lost."""
        self._sock.close()
