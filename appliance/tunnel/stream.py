"""One sealed TCP connection between the two data planes: records out, records in. Thin: it only moves bytes.

Nothing waits in the kernel that could wait here: TCP_NOTSENT_LOWAT keeps the unsent part of the socket's buffer short,
so a batch is sealed when the line can take it, and our own queue sees how long packets wait.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from . import frame, keys, startup
from .buffers import Pool
from .fairqueue import FairQueue
from .liveness import Liveness
from .startup import StartUp

_DATA: Final = int(frame.Kind.DATA)
_HEADER: Final = frame.RECORD.size
_NOTSENT_LOWAT: Final = 25  # TCP_NOTSENT_LOWAT in linux/tcp.h; the socket module lacks the name before 3.12
_UNSENT: Final = (4 << 10, 512 << 10)
"""Bytes, at least and at most, that wait unsent in the kernel: what the line carries in `_AHEAD`."""

_AHEAD: Final = 0.005
_TUNE_EVERY: Final = 0.1

LONG: Final = 0.03
"""Seconds of round trip that make a line long."""

_WARM: Final = 12_000_000
"""Bytes per second: a pacing rate from which on BBR stretches no burst of a flow that begins."""

_STALE: Final = 2.0
"""Seconds without a packet after which what BBR knows of the line is worse than nothing."""

_WARMING: Final = 2.0
_BUDGET: Final = 1_500_000
"""Seconds and bytes that a connection may take to get there."""

_FILLER: Final = bytes(4 << 10)
_SNDBUFFORCE: Final = 32  # SO_SNDBUFFORCE in asm-generic/socket.h
_IN_FLIGHT: Final = 16 << 20
"""Bytes of socket buffer; what a long, fast line has on its way, twice over while losses are repaired."""

_INFO: Final = struct.Struct("=68xI28xIQ24xI")
"""Of struct tcp_info in linux/tcp.h: the smoothed round trip in microseconds, segments sent again, the pacing rate in
bytes per second, and segments sent."""

_CC_INFO: Final = 26  # TCP_CC_INFO in linux/tcp.h
_MAX_PACING_RATE: Final = 47  # SO_MAX_PACING_RATE in asm-generic/socket.h
_TCP_INFO: Final = 104
_TOTAL_RETRANSMITS: Final = 100
_MOST_URGENT: Final = 64
_RECORD: Final = frame.RECORD.size + frame.LARGEST_SEALED
_RECEIVE: Final = 8 * _RECORD


class Closed(Exception):
    """The connection is over; the message says why."""


class Stream:
    """A data connection, after its preface has been exchanged."""

    def __init__(
        self,
        sock: socket.socket,
        sealer: keys.Sealer,
        opener: keys.Opener,
        pool: Pool,
        liveness: Liveness,
        counters: Counter[str],
    ) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _IN_FLIGHT)
        except OSError:  # without the right to, as much as the machine allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_FLIGHT)
        with contextlib.suppress(OSError):  # where the kernel has no BBR, or keeps it from us, its default serves
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        self._bbr = sock.family != socket.AF_UNIX and sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16
        ).startswith(b"bbr\0")
        self._cold = self._bbr
        self._start_up, self._limit = StartUp(), startup.UNLIMITED
        self._born, self._budget = time.monotonic(), _BUDGET
        self._carried_at = self._born
        self._sock = sock
        self.fd = sock.fileno()
        self.queue = FairQueue(pool, counters)
        self.liveness = liveness
        self.waiting = False
        self._tune_at = 0.0
        self.rtt = 0.0
        self.rate = 0
        self.sent = self.sent_again = 0
        self._retransmitted = 0
        self._pool = pool
        self._sealer, self._opener = sealer, opener
        # A peer that sends probes and takes no echoes shall not fill our memory.
        self.urgent: deque[tuple[frame.Kind, bytes]] = deque(maxlen=_MOST_URGENT)
        self._record = memoryview(bytearray(_RECORD))
        self._unsent = self._record[:0]
        self._received = memoryview(bytearray(_RECEIVE))
        self._start = self._end = 0
        self._plain = memoryview(bytearray(frame.LARGEST_SEALED))

    def install(self, session: keys.Session) -> None:
        """Be ready to open what is sealed in this epoch."""
        self._opener.install(session)

    def rekey(self, session: keys.Session) -> None:
        """Seal in this epoch from now on."""
        self._sealer.rekey(session)

    @property
    def used(self) -> int:
        """Return for how many records a key is in use, at most."""
        return max(self._sealer.used, self._opener.used)

    def retransmitted(self) -> int:
        """Return how many segments TCP has sent again since this was last asked (tcpi_total_retrans in linux/tcp.h)."""
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)
        (total,) = struct.unpack_from("=I", info, _TOTAL_RETRANSMITS)
        before, self._retransmitted = self._retransmitted, total
        return int(total - before)

    def say(self, kind: frame.Kind, payload: bytes) -> None:
        """Send a probe or an echo before anything that waits."""
        self.urgent.append((kind, payload))

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
        self.waiting = wanted
        epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)

    def _seal_next(self) -> bool:
        if self.urgent:
            kind, payload = self.urgent.popleft()
            self._unsent = self._record[: self._sealer.seal(kind, payload, self._record)]
            return True
        if not (self.queue.count or self._cold):
            return False
        now = time.monotonic()
        if now >= self._tune_at:
            self._tune(now)
        if (batch := self.queue.pop(now)) is None:
            return self._cold and self._warm(now)
        if now - self._carried_at > _STALE and self._bbr and self.rtt >= LONG:
            self._begin_anew()
        self._carried_at = now
        length = self._sealer.seal(_DATA, batch.memory[: batch.length], self._record)
        self._unsent = self._record[:length]
        self._pool.give(batch)
        return True

    def _begin_anew(self) -> None:
        """Have BBR look for the line's bandwidth from the window that it has.

        While nothing but probes is sent, all that it has measured falls out of its filter, ten round trips long, and
        what it measures first is then the bandwidth. If a segment is lost among the first, that is as much as was in
        flight, and a hundred Mbit/s become one (minmax_running_max and bbr_set_cwnd_to_recover_or_restore in Linux).
        """
        with contextlib.suppress(OSError):
            for congestion in (b"reno", b"bbr"):
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion)
        self._start_up = StartUp()
        self._hold_to(startup.UNLIMITED)

    def _warm(self, now: float) -> bool:
        """Fill a line that nobody uses yet, so that BBR knows it when somebody does; return whether it needs more.

        Else BBR paces a flow that begins by what little it knows of the line. That stretches each of the flow's first
        bursts, CUBIC takes it for a queue, and stops doubling its rate at a hundredth of the line.
        """
        self._cold = now < self._born + _WARMING and self.rtt >= LONG and self.rate < _WARM and self._budget > 0
        if self._cold:
            self._budget -= len(_FILLER)
            self._unsent = self._record[: self._sealer.seal(frame.Kind.FILLER, _FILLER, self._record)]
        return self._cold

    def _tune(self, now: float) -> None:
        """Adapt to the line: how long packets may wait, and how much of them in the kernel, where none overtakes."""
        self._tune_at = now + _TUNE_EVERY
        rtt, again, rate, sent = _INFO.unpack(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
        self.rtt, self.rate, self.sent, self.sent_again = rtt / 1e6, rate, sent, again
        self.queue.tune(self.rtt)
        least, most = _UNSENT
        self._sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, min(most, max(least, int(rate * _AHEAD))))
        if self._bbr and self.rtt >= LONG:
            told = self._sock.getsockopt(socket.IPPROTO_TCP, _CC_INFO, startup.SIZE)
            self._hold_to(self._start_up.limit(told, self.rtt, now))

    def _hold_to(self, limit: int) -> None:
        """Have TCP send no faster than so many bytes per second."""
        if limit != self._limit:
            self._limit = limit
            self._sock.setsockopt(socket.SOL_SOCKET, _MAX_PACING_RATE, limit)

    def receive(self, *, calm: bool = False) -> Iterator[tuple[int, memoryview]]:  # noqa: ARG002 - as of datagrams
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
        start, end, received = self._start, self._end + count, self._received
        self._end = end
        try:
            while end - start >= _HEADER:
                header = frame.read_header(received, start)
                stop = start + _HEADER + header[-1]
                if stop > end:
                    break
                length = self._opener.open(header, received[start:stop], self._plain)
                self._start = start = stop
                yield header[0], self._plain[:length]
        except (frame.RemoteProtocolError, keys.NotAuthentic) as error:
            raise Closed(f"the data connection carried {error}") from None
        self._keep_rest()

    def _keep_rest(self) -> None:
        rest = self._end - self._start
        if not rest or _RECEIVE - self._end < _RECORD:
            self._received[:rest] = self._received[self._start : self._end]
            self._start, self._end = 0, rest

    def close(self) -> None:
        """End it at once; what waited is lost."""
        self._sock.close()
