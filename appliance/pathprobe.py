"""One round trip through a tunnel: an ICMP echo or a TCP connection, bound to the tunnel's device. Thin.

Bound, so that no other way can answer for it; whether the route is there is asked elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from typing import Final

from appliance.options import Target

PATIENCE: Final = 1.0  # seconds
_ECHO: Final = {4: (8, 0, socket.IPPROTO_ICMP), 6: (128, 129, socket.IPPROTO_ICMPV6)}  # RFC 792, RFC 4443
_HEADER: Final = struct.Struct("!BBHHH")


class NoAnswer(Exception):
    """Nothing came back; the message says why."""


async def ask(target: Target, device: str, patience: float = PATIENCE) -> float:
    """Return the seconds until the answer; raise `NoAnswer`."""
    begin = time.monotonic()
    try:
        async with asyncio.timeout(patience):
            await (_connect(target, device) if target.port else _echo(target, device))
    except TimeoutError:
        raise NoAnswer(f"no answer from {target} within {patience:g} s") from None
    except ConnectionRefusedError:
        pass  # somebody is there and says no: the path works
    except OSError as error:
        raise NoAnswer(f"{target}: {error.strerror or error}") from None
    return time.monotonic() - begin


def _socket(target: Target, device: str, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET6 if target.address.version == 6 else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    except BaseException:
        made.close()
        raise
    return made


async def _connect(target: Target, device: str) -> None:
    with _socket(target, device, socket.SOCK_STREAM) as sock:
        await asyncio.get_running_loop().sock_connect(sock, (str(target.address), target.port))


async def _echo(target: Target, device: str) -> None:
    kind, reply, protocol = _ECHO[target.address.version]
    mark, payload = int.from_bytes(os.urandom(2), "big"), os.urandom(16)
    packet = _HEADER.pack(kind, 0, 0, mark, 1) + payload
    if target.address.version == 4:  # for IPv6 the kernel fills it in
        packet = _HEADER.pack(kind, 0, checksum(packet), mark, 1) + payload
    loop = asyncio.get_running_loop()
    with _socket(target, device, socket.SOCK_RAW, protocol) as sock:
        await loop.sock_sendto(sock, packet, (str(target.address), 0))
        while True:
            answer = await loop.sock_recv(sock, 2048)
            body = answer[(answer[0] & 15) * 4 :] if target.address.version == 4 else answer
            if len(body) >= _HEADER.size and body[0] == reply and body[_HEADER.size :] == payload:
                return


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
