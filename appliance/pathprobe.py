"""One round trip through a tunnel: an ICMP echo or a TCP connection, bound to the tunnel's device. Thin.

Bound, so that no other way can answer for it; whether the route is there is asked elsewhere. None of it needs a
privilege: a socket that is not bound yet may be bound to a device since Linux 5.7 (net/core/sock.c), and an echo goes
by a ping socket (icmp(7), net.ipv4.ping_group_range, which nexthop-forward sees to). There the kernel writes identifier
and checksum, and hands over only what answers.
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
    payload = os.urandom(16)
    loop = asyncio.get_running_loop()
    with _socket(target, device, socket.SOCK_DGRAM, protocol) as sock:
        await loop.sock_sendto(sock, _HEADER.pack(kind, 0, 0, 0, 1) + payload, (str(target.address), 0))
        while True:
            answer = await loop.sock_recv(sock, 2048)
            if len(answer) >= _HEADER.size and answer[0] == reply and answer[_HEADER.size :] == payload:
                return
