"""Datagrams that reach gtund itself: from clients whose address is new, and from anybody.

Each client's worker has a UDP socket of its own on the shared port, connected to its client, so the kernel steers what
comes from there. All else comes here, to the one that is not connected. It may be a client that has moved: its worker
looks at it, and if it is authentic the worker gets a socket connected to the new address. The kernel drops what cannot
be of a unit before we are woken; of what can, a flood costs a look-up each, and of one session few are passed on in a
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Final

from . import frame, unit

Address = tuple[str | int, ...]
Known = Callable[[bytes], bool]
"""Whether there is a session of that id."""

HandOn = Callable[[bytes, bytes, Address], None]
"""(session id, datagram, where it came from)"""

_MOST_A_SECOND: Final = 50
_READS: Final = 64
_LONGEST: Final = 2048
"""Only a probe is looked at, and a probe is one short datagram."""

_SO_ATTACH_FILTER: Final = 26
_UDP_HEADER: Final = 8
_INSTRUCTION: Final = struct.Struct("=HBBI")


class Strays:
    """The unconnected UDP socket of a gtund that listens on `where`."""

    def __init__(self, family: socket.AddressFamily, where: Address) -> None:
        self._family, self._where = family, where
        self._sock = self._bound()
        _drop_garbage(self._sock)
        self._second = 0
        self._passed: dict[bytes, int] = {}

    def connected(self, address: Address) -> socket.socket:
        """Return a socket on our port that gets what comes from `address` and nothing else."""
        sock = self._bound()
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock

    @contextlib.contextmanager
    def watched(self, known: Known, hand_on: HandOn) -> Iterator[None]:
        """Hand on what names a known session, for as long as the block runs."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._read, known, hand_on)
        try:
            yield
        finally:
            loop.remove_reader(self._sock)
            self._sock.close()

    def _read(self, known: Known, hand_on: HandOn) -> None:
        for _ in range(_READS):
            try:
                datagram, address = self._sock.recvfrom(_LONGEST)
            except OSError:
                return
            place = unit.read(datagram, len(datagram) - unit.OVERHEAD)
            if place is not None and known(place.session_id) and self._few(place.session_id):
                hand_on(place.session_id, datagram, address)

    def _few(self, session_id: bytes) -> bool:
        """Count one for a session, of which there are not many, and tell whether it is one of few."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._passed = second, {}
        self._passed[session_id] = self._passed.get(session_id, 0) + 1
        return self._passed[session_id] <= _MOST_A_SECOND

    def _bound(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self._family == socket.AF_INET6:  # IPv4 as well where every address is meant, as the TCP listener
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self._where[0] != "::")
        sock.bind(self._where)
        return sock


def _drop_garbage(sock: socket.socket) -> None:
    """Have the kernel drop what cannot be a datagram of ours: too short, or another version, kind or length.

    Classic BPF, which sees a datagram from its UDP header on (linux/filter.h, net/ipv4/udp.c).
    """
    load_length, load_byte, load_word, if_equal, if_greater, if_at_least, end = 0x80, 0x30, 0x20, 0x15, 0x25, 0x35, 0x06
    at = _UDP_HEADER
    tests = (
        ((load_length, 0), (if_at_least, at + unit.OVERHEAD, True)),
        ((load_byte, at), (if_equal, frame.VERSION, True)),
        ((load_byte, at + 1), (if_greater, frame.Kind.ECHO, False)),
        ((load_word, at + unit.PREFIX.size - 4), (if_at_least, frame.TAG, True)),
        ((load_word, at + unit.PREFIX.size - 4), (if_greater, unit.LARGEST, False)),
    )
    program, left = b"", 2 * len(tests)
    for (load, where), (jump, value, wanted) in tests:
        left -= 2
        drop = left + 1  # from the next instruction to the last
        program += _INSTRUCTION.pack(load, 0, 0, where)
        program += _INSTRUCTION.pack(jump, 0 if wanted else drop, drop if wanted else 0, value)
    program += _INSTRUCTION.pack(end, 0, 0, 0xFFFF) + _INSTRUCTION.pack(end, 0, 0, 0)
    memory = array("B", program)
    address, length = memory.buffer_info()
    with contextlib.suppress(OSError):  # what it would drop is looked at, then
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length // _INSTRUCTION.size, address))
