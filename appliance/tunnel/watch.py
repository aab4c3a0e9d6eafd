"""Notice that somebody works on this machine's devices and addresses. Thin: a netlink socket; its content is not read.

Whoever is woken looks for himself: an overrun (ENOBUFS) means that events were lost, and is one more reason to look.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from typing import Final

_GROUPS: Final = 0x1 | 0x10  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR of linux/rtnetlink.h
_SETTLE: Final = 0.005  # seconds; a burst of events is one change
_EVENT: Final = 64 << 10


async def changes() -> AsyncGenerator[None, None]:
    """Yield at once, and again after each burst of events. Raises `OSError` where the kernel gives no socket."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as events:
        events.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        events.bind((0, _GROUPS))
        loop = asyncio.get_running_loop()
        yield
        while True:
            try:
                await loop.sock_recv(events, _EVENT)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            await asyncio.sleep(_SETTLE)
            _drain(events)
            yield


def _drain(events: socket.socket) -> None:
    while True:
        try:
            events.recv(_EVENT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
