"""One plaintext TCP connection: messages in, messages out. Thin: it only moves bytes.

Nothing waits in the kernel that could wait here: TCP_NOTSENT_LOWAT keeps the unsent part of the socket's buffer short,
so that `Outbox` sees how long packets wait. Nothing here ever waits for a peer, so a slow one delays only itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from appliance.tunnel.frame import RemoteProtocolError

from .message import LONGEST, Command, Decoder, encode
from .outbox import Outbox

_NOTSENT_LOWAT: Final = 25  # TCP_NOTSENT_LOWAT in linux/tcp.h; the socket module lacks the name before 3.12
_UNSENT: Final = 128 << 10
_READ: Final = 64 << 10

Take = Callable[[int, memoryview], None]


class Closed(Exception):
    """The connection is over; the message says why."""


class Line:
    """A connection. `patience`: seconds that what we sent may stay unanswered by the peer's TCP."""

    def __init__(self, sock: socket.socket, counters: Counter[str], patience: float) -> None:
        _prepare(sock, patience)
        self.counters = counters
        self.heard = time.monotonic()
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._early: list[tuple[int, memoryview]] = []
        self._outbox = Outbox()
        self._take: Take | None = None
        self._over: asyncio.Future[str] = self._loop.create_future()
        self._watched = False

    # --- before `start`: one message at a time -----------------------------------------------------------------------

    async def tell(self, message: bytes) -> None:
        """Send a message and wait until the kernel has it."""
        await self._loop.sock_sendall(self._sock, message)

    async def message(self) -> tuple[int, memoryview]:
        """Return the next message; raise `Closed`, `RemoteProtocolError` or OSError when there will be none."""
        while not self._early:
            data = await self._loop.sock_recv(self._sock, _READ)
            if not data:
                raise Closed("the peer closed the connection")
            self._early += self._decoder.receive(data)
        return self._early.pop(0)

    async def farewell(self) -> None:
        """Let the peer read what we said last and close first: our closing before it has read could take it away."""
        self._sock.shutdown(socket.SHUT_WR)
        while await self._loop.sock_recv(self._sock, _READ):
            pass

    # --- after it ----------------------------------------------------------------------------------------------------

    def start(self, take: Take) -> None:
        """Hand every message from now on to `take`, at the length that an authorized peer may use."""
        self._decoder.limit = LONGEST
        self._take = take
        self._loop.add_reader(self._sock, self._readable)
        early, self._early = self._early, []
        for command, payload in early:
            take(command, payload)

    async def over(self) -> str:
        """Wait for the end and return why it came."""
        return await asyncio.shield(self._over)

    def forward(self, packet: bytes, now: float) -> None:
        """Queue a packet, or drop and count it; `flush` sends."""
        if self._outbox.put(encode(Command.DATA, packet), now):
            self.counters["tx_packets"] += 1
            self.counters["tx_bytes"] += len(packet)
        else:
            self.counters["drop_queue"] += 1

    def say(self, message: bytes) -> None:
        """Send a heartbeat ahead of all packets. A peer that does not read gets no more of them."""
        if not self._outbox.say(message):
            self.counters["drop_heartbeat"] += 1
        self.flush()

    def flush(self) -> None:
        """Send what the line takes now; the rest goes when there is room."""
        if self._over.done():
            return
        try:
            while chunk := self._outbox.chunk():
                self._outbox.sent(self._sock.send(chunk))
        except BlockingIOError:
            self._watch(wanted=True)
        except OSError as error:
            self.end(f"the connection broke: {error.strerror}")
        else:
            self._watch(wanted=False)

    def end(self, why: str) -> None:
        """End it; `over` returns `why`, unless it was over before."""
        if not self._over.done():
            self._over.set_result(why)
            self._forget()

    def close(self) -> None:
        """Close at once; what waited is lost."""
        self.end("we closed the connection")
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"the connection broke: {error.strerror}")
            return
        if not data:
            self.end("the peer closed the connection")
            return
        try:
            messages = self._decoder.receive(data)
        except RemoteProtocolError as error:
            self.end(f"the peer does not speak the protocol: {error}")
            return
        if messages and self._take is not None:
            self.heard = time.monotonic()
            for command, payload in messages:
                self._take(command, payload)

    def _watch(self, *, wanted: bool) -> None:
        if wanted and not self._watched:
            self._loop.add_writer(self._sock, self.flush)
        elif self._watched and not wanted:
            self._loop.remove_writer(self._sock)
        self._watched = wanted

    def _forget(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)


def _prepare(sock: socket.socket, patience: float) -> None:
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
    except OSError:  # it is over already
        sock.close()
        raise


async def dial(host: str, port: int, patience: float) -> socket.socket:
    """Return a socket connected to one of the host's addresses, each tried for its share of `patience` seconds.

    Raise OSError, `TimeoutError` among them, of the last one.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            try:
                async with asyncio.timeout(patience / len(found)):
                    await loop.sock_connect(sock, address)
            except OSError as error:
                last = error
                continue
            stack.pop_all()
            return sock
    raise last
