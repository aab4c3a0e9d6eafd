"""Strangers at gtund's door, from many addresses.

    python -m tests.lab.flood ADDRESS PORT --seconds 10 [--live DEVICE]

Three floods at once, each at its own rate: datagrams of garbage, TCP connections that say nonsense, and completed TLS
handshakes that say nothing more. With `--live` half of the datagrams come, as it were, from the client whose datagrams
pass on that device, with its session's id and with counters that are just in use: whole units, and parts of long ones.
Prints as JSON how many datagrams were sent, and how many connections and handshakes came about.

Strangers have machines of their own. Here they share one with those whom they disturb, so this is one epoll loop that
does as little as it can. Source addresses are 198.51.0.0/16, which have to be local here and routed back to here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import socket
import ssl
import struct
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from appliance.tunnel import unit

if TYPE_CHECKING:
    from collections.abc import Callable

_TICK: Final = 0.005
_IP_FREEBIND: Final = 15
_ETH_P_IP: Final = 0x0800
_OUTGOING: Final = 4
_SO_ATTACH_FILTER: Final = 26
_ONLY_UDP: Final = ((0x30, 0, 0, 9), (0x15, 0, 1, socket.IPPROTO_UDP), (0x06, 0, 0, 256), (0x06, 0, 0, 0))
"""Classic BPF: load the byte that says the protocol, compare, take 256 bytes, take none."""

_LOOK_EVERY: Final = 0.5
_VARIANTS: Final = 200
_IN_USE: Final = 4000
"""Counters from the one last seen on that are forged."""

_HEADERS: Final = 28
_SOURCE, _SOURCE_PORT, _COUNTER = 14, 20, _HEADERS + 12
"""Where they are in a packet: the last two bytes of the source address, the source port, the counter of a unit."""

_SHORT: Final = struct.Struct("!H")
_LONG: Final = struct.Struct("!Q")
_PART: Final = 1400
_NONSENSE: Final = (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03", os.urandom(100))
_NONSENSE_HELD: Final = 2.0
_HANDSHAKE_HELD: Final = 6.0
"""Seconds for which a connection stays, unless the server ends it."""

_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE


_Going = Generator[int, None, None]
_Row = deque[tuple[float, int, _Going]]


class Pace:
    """How many of something are due. What could not be done in time is not done later."""

    def __init__(self, rate: float) -> None:
        self._rate, self._begin, self._done = rate, time.monotonic(), 0

    def due(self) -> int:
        due = int((time.monotonic() - self._begin) * self._rate) - self._done
        self._done += due
        return min(due, int(self._rate / 10) + 1)


class Tap:
    """Where the live client's counters are, as who is on the line sees them."""

    def __init__(self, device: str, target: str) -> None:
        self._target = socket.inet_aton(target)
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._tap.setblocking(False)
        # A tunnel that is busy has a thousand times as much of TCP.
        program = array("B", b"".join(struct.pack("=HBBI", *each) for each in _ONLY_UDP))
        attached = struct.pack("@HP", len(_ONLY_UDP), program.buffer_info()[0])
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        self._tap.bind((device, _ETH_P_IP))

    def newest(self) -> bytes | None:
        """Return the newest datagram to the target, with its headers; None if none has passed."""
        found = None
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                packet, where = self._tap.recvfrom(256)
                if packet[16:20] == self._target and where[2] != _OUTGOING:
                    found = packet
        return found


class Datagrams:
    """Garbage, under any source address; half of it under the live client's, once that has been seen."""

    def __init__(self, options: argparse.Namespace, counts: Counter[str]) -> None:
        self._counts, self._target, self._port = counts, socket.inet_aton(options.address), options.port
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw.setblocking(False)
        self._raw.connect((options.address, 0))
        self._tap = Tap(options.live, options.live_to or options.address) if options.live else None
        self._look_at = 0.0
        self._strange = [self._packet(socket.inet_aton("198.51.0.0"), 0, _garbage()) for _ in range(_VARIANTS)]
        self._live: list[bytearray] = []
        self._counter = 0

    def send(self, count: int) -> None:
        """Send so many."""
        self._look()
        chance, live, strange, done = random.random, self._live, self._strange, 0
        for number in range(count):
            if live and number & 1:
                packet = live[int(chance() * _VARIANTS)]
                _LONG.pack_into(packet, _COUNTER, self._counter + int(chance() * _IN_USE))
            else:
                packet = strange[int(chance() * _VARIANTS)]
                _SHORT.pack_into(packet, _SOURCE, 1 + int(chance() * 65_000))
                _SHORT.pack_into(packet, _SOURCE_PORT, 1024 + int(chance() * 64_000))
            with contextlib.suppress(OSError):
                self._raw.send(packet)
                done += 1
        self._counts["datagrams"] += done

    def _look(self) -> None:
        now = time.monotonic()
        if self._tap is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        if (seen := self._tap.newest()) is not None:
            version, kind, epoch, session, self._counter, _ = unit.PREFIX.unpack_from(seen, _HEADERS)
            (port,) = _SHORT.unpack_from(seen, _SOURCE_PORT)
            self._live = []
            for number in range(_VARIANTS):
                part, place = _garbage(), unit.PLACE.pack(_PART, 0)
                length = len(part)
                if number & 1:  # one of many, and each says something else of its place
                    length, part, place = unit.LARGEST, os.urandom(_PART), unit.PLACE.pack(_PART, number % 40)
                prefix = unit.PREFIX.pack(version, kind, epoch, session, 0, length)
                self._live.append(self._packet(seen[12:16], port, prefix + place + part))

    def _packet(self, source: bytes, port: int, payload: bytes) -> bytearray:
        """Return a packet. The kernel fills in IPv4's length and sum (raw(7)); UDP's sum may be left out."""
        ip = struct.pack("!BB6xBB2x4s4s", 0x45, 0, 64, socket.IPPROTO_UDP, source, self._target)
        return bytearray(ip + struct.pack("!4H", port, self._port, 8 + len(payload), 0) + payload)


def _garbage() -> bytes:
    return os.urandom(random.choice((20, 200, 1400)))


class Connections:
    """TCP connections from many addresses. Each is a generator: it yields the event that it waits for, and ends."""

    def __init__(self, options: argparse.Namespace, counts: Counter[str]) -> None:
        self._where, self._counts = (options.address, options.port), counts
        self._epoll = select.epoll()
        self._open: dict[int, _Going] = {}
        self._leave: tuple[_Row, ...] = (deque(), deque())

    def nonsense(self, count: int) -> None:
        """Begin so many that say nonsense."""
        for _ in range(count):
            self._begin(self._say_nonsense, self._leave[0], _NONSENSE_HELD)

    def handshakes(self, count: int) -> None:
        """Begin so many handshakes."""
        for _ in range(count):
            self._begin(self._greet, self._leave[1], _HANDSHAKE_HELD)

    def wait(self, seconds: float) -> None:
        """Go on with those to which something has come; leave those that have been there for long."""
        for fd, _events in self._epoll.poll(seconds):
            self._go_on(fd, self._open[fd])
        now = time.monotonic()
        for row in self._leave:
            while row and row[0][0] <= now:
                _, fd, which = row.popleft()
                if self._open.get(fd) is which:
                    self._end(fd)

    def _begin(
        self,
        how: Callable[[socket.socket], _Going],
        row: _Row,
        held: float,
    ) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            sock.bind((f"198.51.{random.randrange(256)}.{random.randrange(1, 255)}", 0))
            sock.connect_ex(self._where)
        except OSError:
            sock.close()
            return
        fd, which = sock.fileno(), how(sock)
        self._epoll.register(fd, next(which))
        self._open[fd] = which
        row.append((time.monotonic() + held, fd, which))

    def _go_on(self, fd: int, which: _Going) -> None:
        try:
            self._epoll.modify(fd, next(which))
        except (StopIteration, OSError):
            self._end(fd)

    def _end(self, fd: int) -> None:
        which = self._open.pop(fd)
        which.close()

    def _say_nonsense(self, sock: socket.socket) -> _Going:
        with sock:
            yield select.EPOLLOUT
            sock.send(random.choice(_NONSENSE))
            self._counts["connections"] += 1
            yield select.EPOLLIN

    def _greet(self, sock: socket.socket) -> _Going:
        with sock:
            yield select.EPOLLOUT
            with _TLS.wrap_socket(sock, do_handshake_on_connect=False) as tls:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        yield select.EPOLLIN
                self._counts["handshakes"] += 1
                yield select.EPOLLIN


def flood(options: argparse.Namespace) -> Counter[str]:
    """Keep all three up for as long as was asked; return what was sent and came about."""
    counts: Counter[str] = Counter()
    datagrams, connections = Datagrams(options, counts), Connections(options, counts)
    floods = (
        (Pace(options.datagrams), datagrams.send),
        (Pace(options.connections), connections.nonsense),
        (Pace(options.handshakes), connections.handshakes),
    )
    until = time.monotonic() + options.seconds
    while (now := time.monotonic()) < until:
        for pace, send in floods:
            send(pace.due())
        tick = now + _TICK
        while (left := tick - time.monotonic()) > 0:
            connections.wait(left)
    return counts


def main() -> None:
    """Flood, and tell what was sent."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.flood")
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--datagrams", type=float, default=10_000, help="a second; likewise the next two")
    parser.add_argument("--connections", type=float, default=500)
    parser.add_argument("--handshakes", type=float, default=100)
    parser.add_argument("--live", help="device on which the client's datagrams pass")
    parser.add_argument("--live-to", help="where they go to; default: ADDRESS")
    sys.stdout.write(json.dumps(flood(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()
