"""Strangers at gtund's door, from many addresses.

    python -m tests.lab.flood ADDRESS PORT --seconds 10 [--live DEVICE]

Three floods at once, each at its own rate: datagrams of garbage, TCP connections that say nonsense, and completed TLS
handshakes that say nothing more. With `--live` half of the datagrams come, as it were, from the client whose datagrams
pass on that device, with its session's id and with counters that are just in use. Prints what was sent, as JSON.

Source addresses are 198.51.0.0/16, which have to be local here and routed back to here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from typing import Final

from appliance.tunnel import unit

_TICK: Final = 0.01
_IP_FREEBIND: Final = 15
_HELD: Final = 400
_OUTGOING: Final = 4
_LOOK_EVERY: Final = 0.5


def source() -> str:
    """Return one of many addresses."""
    return f"198.51.{random.randrange(256)}.{random.randrange(1, 255)}"


class Flood:
    """What is sent, and how much of it was."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sent: Counter[str] = Counter()
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw.setblocking(False)
        self._live: tuple[bytes, tuple[int, int, int, bytes, int, int]] | None = None
        self._look_at = 0.0

    async def run(self) -> None:
        """Keep all three up for as long as was asked."""
        options = self.options
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(options.seconds), asyncio.TaskGroup() as group:
                group.create_task(self._paced(options.datagrams, self._datagram))
                group.create_task(self._paced(options.connections, lambda: group.create_task(self._nonsense())))
                group.create_task(self._paced(options.handshakes, lambda: group.create_task(self._handshake())))

    async def _paced(self, rate: float, act) -> None:
        begin, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begin) * rate) - done
            for _ in range(min(due, int(rate * 10 * _TICK) + 1)):
                act()
            done += due
            await asyncio.sleep(_TICK)

    # ---- datagrams --------------------------------------------------------------------------------------------------

    def _datagram(self) -> None:
        self._look()
        ports = struct.pack("!HH", random.randrange(1024, 65_536), self.options.port)
        address = socket.inet_aton(source())
        garbage = random.randbytes(random.choice((20, 200, 1400)))
        if self._live is not None and self.sent["datagrams"] & 1:
            header, (version, kind, epoch, session, counter, length) = self._live
            address, ports = header[12:16], header[20:24]
            prefix = unit.PREFIX.pack(version, kind, epoch, session, counter + random.randrange(4000), length)
            garbage = prefix + unit.PLACE.pack(1444, 0) + garbage[: unit.LARGEST]
            if self.sent["datagrams"] & 2:
                part = min(len(garbage) - unit.OVERHEAD, 1444)
                prefix = unit.PREFIX.pack(version, 0, epoch, session, counter + random.randrange(4000), part)
                garbage = prefix + unit.PLACE.pack(1444, 0) + garbage[unit.OVERHEAD :][:part]
        udp = ports + struct.pack("!HH", 8 + len(garbage), 0)
        target = socket.inet_aton(self.options.address)
        with contextlib.suppress(OSError):
            whole = bytes([0x45, 0]) + bytes(6) + bytes([64, 17, 0, 0]) + address + target + udp + garbage
            self._raw.sendto(whole, (self.options.address, 0))
            self.sent["datagrams"] += 1

    def _look(self) -> None:
        """Learn from time to time where the live client's counters are, as who is on the line sees them."""
        now = time.monotonic()
        if self.options.live is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        target = socket.inet_aton(self.options.live_to)
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as tap:
            tap.bind((self.options.live, 0x0800))
            tap.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                for _ in range(2000):
                    packet, where = tap.recvfrom(200)
                    if packet[9] == socket.IPPROTO_UDP and packet[16:20] == target and where[2] != _OUTGOING:
                        self._live = packet[:28], unit.PREFIX.unpack_from(packet, 28)
                        return

    # ---- connections ------------------------------------------------------------------------------------------------

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((source(), 0))
        return sock

    async def _nonsense(self) -> None:
        with contextlib.suppress(OSError, TimeoutError), self._socket() as sock:
            async with asyncio.timeout(2):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (self.options.address, self.options.port))
                self.sent["connections"] += 1
                await loop.sock_sendall(sock, random.choice((b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03", os.urandom(100))))
                await loop.sock_recv(sock, 100)

    async def _handshake(self) -> None:
        with contextlib.suppress(OSError, TimeoutError), self._socket() as sock:
            async with asyncio.timeout(6):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (self.options.address, self.options.port))
                # Without asyncio's TLS, which costs as much as the server's: all of this is on one machine.
                came, gone = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = _TLS.wrap_bio(came, gone)
                while not await self._shaken(sock, tls, gone):
                    came.write(await loop.sock_recv(sock, 16 << 10))
                self.sent["handshakes"] += 1
                await loop.sock_recv(sock, 1)

    async def _shaken(self, sock: socket.socket, tls: ssl.SSLObject, gone: ssl.MemoryBIO) -> bool:
        """Go on with a handshake; return whether it is done."""
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            await asyncio.get_running_loop().sock_sendall(sock, gone.read())
        return True


_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE


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
    options = parser.parse_args()
    options.live_to = options.live_to or options.address
    flood = Flood(options)
    asyncio.run(flood.run())
    sys.stdout.write(json.dumps(flood.sent) + "\n")


if __name__ == "__main__":
    main()
