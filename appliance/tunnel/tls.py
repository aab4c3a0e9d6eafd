"""A control connection: TLS on a non-blocking socket, read and written where the socket is. Used by both ends.

Not the standard library's streams, which keep a quarter of a megabyte for each TLS connection and take three times as
long to shake hands: at a server's door there are hundreds of strangers at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 12))
"""Seconds of silence before the first probe, between probes, and how many may go unanswered (tcp(7)).

A line that loses a fifth each way leaves four in a row unanswered once in sixty times, and the session would end.
Whether packets still pass is found out by the data channels' own probes, in seconds.
"""

_MOST_UNSENT: Final = 64 << 10
"""Bytes that wait for a peer that does not read; what is said here is short and rare."""


class Line:
    """One end of a control connection, which one task may read. Its errors are `OSError`, as those of TLS are."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        """Take over a connected socket; it is closed if that fails."""
        try:
            keep_alive(sock)
            self._tls = context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise
        self._fd = self._tls.fileno()
        self._unsent = bytearray()
        self._waiting: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, host: str, port: int, context: ssl.SSLContext, patience: float) -> Line:
        """Connect to the first of the host's addresses that takes it, and shake hands; raise what the last one said.

        `patience`: seconds for all addresses together; one that is silent leaves the others their share.
        """
        loop, failure = asyncio.get_running_loop(), OSError("the name has no address")
        addresses = await _addresses(host, port)
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            try:
                async with asyncio.timeout(patience / len(addresses)):
                    await loop.sock_connect(sock, address)
            except OSError as error:  # silence, too
                sock.close()
                failure = error
                continue
            except BaseException:
                sock.close()
                raise
            line = cls(sock, context, server_side=False)
            try:
                await line.shake_hands()
            except BaseException:
                line.hang_up()
                raise
            return line
        raise failure

    @property
    def peer(self) -> tuple[str, int]:
        """Return the address and port of the other end; of IPv6 all that `socket` makes of it."""
        return self._tls.getpeername()  # type: ignore[no-any-return]

    @property
    def certificate(self) -> bytes | None:
        """Return the peer's certificate (DER), after the handshake."""
        return self._tls.getpeercert(binary_form=True)

    async def shake_hands(self) -> None:
        """Do the handshake."""
        await self._until_done(self._tls.do_handshake)

    async def read(self, most: int) -> bytes:
        """Return what has come, at most so many bytes; b"" at the end, whichever side it is from."""
        return await self._until_done(lambda: self._tls.recv(most) if self._fd >= 0 else b"")

    def write(self, data: bytes) -> None:
        """Send, now or as soon as the peer takes it. A line that is broken says so to who reads."""
        if self._fd < 0:
            return
        self._unsent += data
        self._push()
        if len(self._unsent) > _MOST_UNSENT:
            self.hang_up()

    def close(self) -> None:
        """End it with the farewell of TLS; what the peer does not take now is lost."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._tls.unwrap()  # says it, and then would wait for the peer to say it
        self.hang_up()

    def hang_up(self) -> None:
        """End it at once."""
        if self._fd < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        self._fd = -1
        self._tls.close()
        self._wake()

    def _push(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                del self._unsent[: self._tls.send(self._unsent)]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            loop.add_writer(self._fd, self._push)
            return
        except OSError:
            self._unsent.clear()
        loop.remove_writer(self._fd)

    async def _until_done(self, step: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._waiting = loop.create_future()
                loop.add_reader(self._fd, self._wake)
            try:
                await self._waiting
            finally:
                self._waiting = None
                if self._fd >= 0:
                    loop.remove_reader(self._fd)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def keep_alive(sock: socket.socket) -> None:
    """Have a control connection, on which nothing is said for hours, end when its way is gone; and keep NATs awake."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _addresses(host: str, port: int) -> list[tuple[Any, ...]]:
    """Return what `socket.getaddrinfo` does. A name is looked up in a thread, a number needs none."""
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
