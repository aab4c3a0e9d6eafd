"""The worker's line to its parent: JSON objects through a socket pair, of which each is one message. Thin.

parent -> worker   device (with the TUN)   session   connection, datagram (with a socket)   stray (a datagram)
                   epoch (its secret)   switch   end
worker -> parent   alive   ready (an epoch)   lost (a connection)   roamed (an address)   over (why)
                   counters (each second)
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

_MESSAGE: Final = 16 << 10


class ParentGone(Exception):
    """There is nobody to work for any more."""


class Parent:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self.fd = sock.fileno()

    def order(self) -> tuple[dict[str, Any], list[int]]:
        """Return the next order, which has to be there, and the descriptors with it."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _MESSAGE, 1)
        except OSError:  # it died with reports of ours unread
            data = b""
        if not data:
            raise ParentGone
        return json.loads(data), fds

    def tell(self, what: str, message: dict[str, object]) -> bool:
        """Report something; return whether it was taken: a parent that does not listen loses reports, not packets."""
        try:
            self._sock.send(json.dumps({"is": what, **message}).encode())
        except BlockingIOError:
            return False
        except OSError:
            raise ParentGone from None
        return True
