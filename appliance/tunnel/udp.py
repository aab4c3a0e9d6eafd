"""A UDP socket as the datagram channel needs it: what Linux is asked for, and the numbers of that. Thin.

Options and messages: linux/udp.h (UDP_SEGMENT, UDP_GRO), linux/in.h and linux/in6.h (path MTU), asm-generic/socket.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DO: Final = 2
_IP_MTU: Final = 14
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MTU: Final = 24
_BUFFER: Final = 8 << 20
_SNDBUFFORCE: Final = 32
_RCVBUFFORCE: Final = 33

Ancillary = list[tuple[int, int, bytes]]
"""Level, type and content of control messages, as `socket` takes and gives them."""


def prepare(sock: socket.socket) -> None:
    """Have a connected socket wait for nothing, hold much, join what comes, and find the path's MTU."""
    sock.settimeout(0)
    for forced, option in ((_SNDBUFFORCE, socket.SO_SNDBUF), (_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
        except OSError:  # without the right to, as much as the machine allows
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    with contextlib.suppress(OSError):
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    if by_v6(sock):
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)


def by_v6(sock: socket.socket) -> bool:
    """Tell whether the peer is reached by IPv6.

    A socket for both versions speaks IPv4 with a peer whose address is mapped, and then takes IPv4's options.
    """
    return sock.family == socket.AF_INET6 and not sock.getpeername()[0].startswith("::ffff:")


def headers(sock: socket.socket) -> int:
    """Return the bytes of the IP and UDP headers on the way to the peer."""
    return 48 if by_v6(sock) else 28


def path_mtu(sock: socket.socket) -> int:
    """Return what the kernel knows of the path's MTU."""
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if by_v6(sock) else (socket.IPPROTO_IP, _IP_MTU)
    return sock.getsockopt(level, option)


def again(sock: socket.socket) -> socket.socket | None:
    """Return another socket to the same peer, None where there is no way to it now."""
    other = socket.socket(sock.family, socket.SOCK_DGRAM)
    try:
        other.connect(sock.getpeername())
    except OSError:
        other.close()
        return None
    return other


def cut_into(size: int) -> Ancillary:
    """Return what has the kernel cut one send into datagrams of `size` bytes."""
    return [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]


def joined(length: int, ancillary: Ancillary) -> int:
    """Return of what size the datagrams are that came as `length` bytes."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_UDP, _UDP_GRO):
            return int(struct.unpack_from("=i", data)[0])
    return length
