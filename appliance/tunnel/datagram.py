"""The datagram channel: sealed units over one UDP socket. Thin: it only moves bytes.

The kernel cuts and joins: UDP_SEGMENT sends many datagrams in one call, UDP_GRO receives as many (linux/udp.h). Where
the first is refused, each datagram is a call of its own.

The keys belong to the session, not to the socket: when the peer's address changes, the channel is given another socket
and goes on counting. Errors of the socket are silence, and silence is for `Liveness` to judge: UDP that does not pass
today may pass tomorrow.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from . import frame, keys, segment, udp, unit, virtio
from .blackhole import BlackHole, next_smaller
from .buffers import Batch, Pool
from .fairqueue import FairQueue
from .intake import REPORT, Intake
from .liveness import PROBE, Liveness, sent_at
from .loss import Loss
from .pacing import Pacing
from .sizing import Sizing

_MOST_SEGMENTS: Final = 44
"""In one send: 44 full datagrams fill the 64 KiB that an IP packet may have."""

_USABLE: Final = 1.0
"""Seconds of silence after which packets take another way; four probes have then gone unanswered."""

_RENEW_AFTER: Final = 2.0

_DATA: Final = int(frame.Kind.DATA)
_MOST_URGENT: Final = 64
"""Probes and echoes that wait: a peer that sends probes and takes no echoes shall not fill our memory."""

_LONGEST_PROBE: Final = unit.LARGEST - frame.TAG - REPORT.size
"""Bytes of a probe whose echo still is a unit."""

_PIECES: Final = 2
"""Of one datagram, as `unit.Cuts` lays them out."""


class Datagram:
    """One session's datagram channel; without a socket until `attach`."""

    def __init__(
        self,
        session: keys.Session,
        direction: keys.Direction,
        pool: Pool,
        liveness: Liveness,
        counters: Counter[str],
        *,
        mtu: int = 1500,
        gso: bool = True,
    ) -> None:
        self.queue = FairQueue(pool, counters)
        self.liveness = liveness
        self.fd = -1
        self.usable_until = 0.0
        self._sock: socket.socket | None = None
        self._pool, self._counters, self._gso, self._mtu = pool, counters, gso, mtu
        self._sealer = unit.Sealer(session, direction)
        self._intake = Intake(session, direction.opposite, mtu - 28 - unit.OVERHEAD, counters)
        self._holes = BlackHole()
        self.urgent: deque[tuple[frame.Kind, bytes]] = deque(maxlen=_MOST_URGENT)
        self._sealed = memoryview(bytearray(unit.LARGEST))
        self._sizing, self._loss = Sizing(), Loss()
        self._pacing = Pacing()
        self.resume_at = 0.0
        self._sent, self._reported_at = 0, time.monotonic()
        self._units: Iterator[memoryview] | None = None
        self._unsent: deque[list[memoryview]] = deque()
        self.waiting = False

    def attach(self, sock: socket.socket) -> None:
        """Use this connected socket from now on."""
        if self._sock is not None:
            self._sock.close()
        udp.prepare(sock)
        self._sock, self.fd, self.waiting = sock, sock.fileno(), False
        self._holes = BlackHole()
        self._attached_at = time.monotonic()
        self._set_mtu(sock, self._mtu)

    def install(self, session: keys.Session) -> None:
        """Be ready to open what is sealed in this epoch."""
        self._intake.opener.install(session)

    def rekey(self, session: keys.Session) -> None:
        """Seal in this epoch from now on."""
        self._sealer.rekey(session)

    def forget(self) -> None:
        """Forget the keys of epochs that are over."""
        self._intake.opener.forget()

    @property
    def used(self) -> int:
        """Return for how many units a key is in use, at most."""
        return max(self._sealer.used, self._intake.opener.used)

    @property
    def usable(self) -> bool:
        """Return whether packets should go this way: a probe came back, and not long ago."""
        return time.monotonic() < self.usable_until

    def lives(self, now: float) -> bool:
        """Return whether probes came back, and lately: on a bad line, a second of silence is not the end."""
        return self._sock is not None and self.liveness.alive and not self.liveness.dead(now)

    @property
    def state(self) -> dict[str, float | int | None]:
        """Return what the control socket tells: bytes in a unit now, and the share of units lost lately."""
        rate = self._pacing.rate
        return {
            "unit_bytes": self._sizing.limit,
            "loss": round(self._loss.ratio, 4),
            "mtu": self._mtu,
            "rate": None if rate is None else round(rate),
        }

    def say(self, kind: frame.Kind, payload: bytes) -> None:
        """Send a probe or an echo before anything that waits. An echo also tells how much has arrived."""
        if kind is frame.Kind.ECHO:
            if len(payload) > _LONGEST_PROBE:
                self._counters["drop_nonsense"] += 1
                return
            payload += self._intake.report()
        else:
            payload = self._stretched(payload)
        self.urgent.append((kind, payload))

    def _stretched(self, probe: bytes) -> bytes:
        """Return a probe, perhaps so long that its echo is a full datagram; before that, heed what is known so far."""
        now = sent_at(probe)
        if self._sock is not None and self._holes.swallows(now):
            self._counters["path_mtu_lowered"] += 1
            self._set_mtu(self._sock, next_smaller(self._mtu))
        full = self._holes.full(suspected=self._loss.ratio > Sizing.TOLERATED)
        self._holes.sent(now, full=full)
        return probe.ljust(self._sizing.smallest - REPORT.size, b"\0") if full else probe

    def echoed(self, payload: bytes, now: float) -> None:
        """Take an echo: the round trip, and what the peer tells of what arrived."""
        if len(payload) <= REPORT.size:
            return
        probe = payload[: -REPORT.size][:PROBE]
        if len(probe) == PROBE:
            self._holes.echoed(sent_at(probe))
        self.liveness.echoed(probe, now)
        if self._sock is not None and self.liveness.alive:
            self.usable_until = now + _USABLE - self.liveness.silence(now)
        sent, taken = REPORT.unpack(payload[-REPORT.size :])
        if self.liveness.latest is not None:
            share = self._sizing.arrived(sent, taken)
            self._pacing.reported(self._sent, share, now - self._reported_at, self.liveness.latest, now)
            self._sent, self._reported_at = 0, now
        self._sizing.reported(sent, taken, now, shrink=not self._pacing.congested)
        self._loss.reported(sent, taken, now)
        self.queue.largest = self._sizing.limit
        self.queue.tune(self.liveness.rtt or 0.0)

    def renewed(self, now: float) -> socket.socket | None:
        """Return a new socket to the same peer once this one has been silent for long, None before.

        A connected socket keeps the source address and port that it began with, which may be what is wrong.
        """
        if self._sock is None or now - self._attached_at < _RENEW_AFTER or self.usable:
            return None
        return udp.again(self._sock)

    # --- out -------------------------------------------------------------------------------------------------------

    def flush(self) -> bool:
        """Seal and send what waits; return whether nothing is left, or has to wait until `resume_at`."""
        self.resume_at = 0.0
        while self._unsent or self._seal_next():
            if not self._push():
                return False
        return True

    def _seal_next(self) -> bool:
        if self.urgent:
            kind, plain = self.urgent.popleft()
            self._seal(kind, plain)
            return True
        if self._units is None and not self.queue.count:
            return False
        now = time.monotonic()
        if wait := self._pacing.wait(now):
            self.resume_at = now + wait
            return False
        while True:
            if self._units is not None:
                if (part := next(self._units, None)) is not None:
                    self._seal(_DATA, part)
                    return True
                self._units = None
            if (batch := self.queue.pop(now)) is None:
                return False
            # What bears losses, since spare parts go with it, is not cut.
            spare = batch.memory[0] & frame.COPY != 0
            if spare or batch.length <= self._sizing.limit:
                self._seal(_DATA, batch.memory[: batch.length], spare=spare)
                self._pool.give(batch)
                return True
            self._units = self._cut(batch)

    def _cut(self, batch: Batch) -> Iterator[memoryview]:
        """Yield a batch in units of the size that the path bears, then let it be used again."""
        yield from _smaller(batch.memory[: batch.length], self._sizing.limit)
        self._pool.give(batch)

    def _seal(self, kind: int, plain: memoryview | bytes, *, spare: bool = False) -> None:
        prefix, length = self._sealer.seal(kind, plain, self._sealed)
        self._sent += length
        self._pacing.sent(length)
        most = _MOST_SEGMENTS if self._gso else 1
        self._unsent.extend(self._cuts.of(prefix, length, most))
        if spare:
            self._unsent.extend(self._cuts.spares(prefix, length, most))

    def _push(self) -> bool:
        """Send the sealed unit; return False if the socket takes no more now. An error costs the unit."""
        while self._unsent and self._sock is not None:
            pieces = self._unsent[0]
            try:
                self._sock.sendmsg(pieces, self._ancillary if len(pieces) > _PIECES else ())
            except BlockingIOError:
                return False
            except OSError as error:
                self._failed(self._sock, error)
                break
            self._unsent.popleft()
        self._unsent.clear()
        return True

    def _failed(self, sock: socket.socket, error: OSError) -> None:
        self._counters["drop_send"] += 1
        if error.errno == errno.EMSGSIZE:  # the path takes less, and the kernel knows how much
            self._set_mtu(sock, min(self._mtu, udp.path_mtu(sock)))
        elif error.errno in {errno.EIO, errno.EINVAL}:  # this kernel or device does not cut for us
            self._gso = False

    def _set_mtu(self, sock: socket.socket, mtu: int) -> None:
        self._mtu = mtu
        part = mtu - udp.headers(sock) - unit.OVERHEAD
        self._cuts = unit.Cuts(self._sealed, part)
        self._ancillary = udp.cut_into(part + unit.OVERHEAD)
        self._sizing.smallest = part - frame.TAG

    def watch_writable(self, epoll: select.epoll, *, wanted: bool) -> None:
        """Have the loop woken, or not, when the socket takes datagrams again."""
        self.waiting = wanted
        epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)

    # --- in --------------------------------------------------------------------------------------------------------

    def receive(self, *, calm: bool = False) -> Iterator[tuple[int, memoryview]]:
        """Yield what units became whole: see `Intake`."""
        return iter(()) if self._sock is None else self._intake.receive(self._sock, calm=calm)

    def take(self, datagram: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Take one datagram that came by another way."""
        return self._intake.take(datagram)

    def close(self) -> None:
        """End it."""
        if self._sock is not None:
            self._sock.close()
            self._sock, self.fd, self.usable_until, self.waiting = None, -1, 0.0, False


def _smaller(batch: memoryview, limit: int) -> Iterator[memoryview]:
    """Yield the batch's packets in batches of at most `limit` bytes, or of one packet; super-packets are cut."""
    out = bytearray()
    for shape, size, packet in _cut(batch, limit):
        if out and len(out) + frame.PACKET.size + len(packet) > limit:
            yield memoryview(out)
            out = bytearray()
        out += frame.PACKET.pack(shape << 24 | len(packet), size)
        out += packet
    if out:
        yield memoryview(out)


def _cut(batch: memoryview, limit: int) -> Iterator[tuple[int, int, bytearray | memoryview]]:
    for shape, size, packet in frame.packets(batch):
        if shape & virtio.SEGMENTED and not shape & frame.COPY and len(packet) > limit:
            yield from segment.split(shape, size, packet, limit - frame.PACKET.size)
        else:
            yield shape, size, packet
