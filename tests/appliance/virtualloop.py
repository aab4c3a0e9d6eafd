"""An event loop in which nothing depends on the machine: with a clock of its own, and Unix sockets in memory.

The clock stands still while there is anything to do, and jumps to the next timer when there is not. What would run in a
thread runs in a turn of the loop. A Unix socket keeps its file, so that whoever made it may move or remove that, but
nothing goes through it: what is written arrives in order, some seconds later, and what was written before an end is
read before it. So the same program does the same thing each time, however busy the machine is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from typing import Any


class Stuck(AssertionError):
    """Everybody waits, and nobody for a time."""


class _Clock(selectors.SelectSelector):
    """Waits for nothing but time, which costs none. `left`: turns until the loop is stopped."""

    now = 0.0
    left = 0
    stop: Callable[[], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.left -= 1
        if self.left == 0:
            self.stop()
        elif timeout is None and self.left < 0:
            raise Stuck
        self.now += max(timeout or 0.0, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`there`, `back`: seconds that what is written from now on takes to who listened, and from there.

    `ends`: open ends of connections.
    """

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._clock.stop = self.stop
        self._listening: dict[int, Callable[[], asyncio.BaseProtocol]] = {}  # by inode
        self.there = self.back = 0.0
        self.ends = 0

    def time(self) -> float:
        return self._clock.now

    def turns(self, count: int) -> None:
        """Go on for so many turns; one in which there is nothing to do moves the clock."""
        if count > 0:
            self._clock.left = count
            self.run_forever()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done = self.create_future()

        def work() -> None:  # as a thread's, it goes on when nobody waits for it any more
            try:
                result = func(*args)
            except BaseException as error:
                if not done.done():
                    done.set_exception(error)
            else:
                if not done.done():
                    done.set_result(result)

        self.call_soon(work)
        return done

    async def create_unix_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: None, *, sock: socket.socket
    ) -> _Server:
        inode = os.stat(sock.getsockname()).st_ino  # noqa: PTH116
        self._listening[inode] = protocol_factory
        return _Server(lambda: self._listening.pop(inode, None))

    async def create_unix_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: os.PathLike[str]
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        await asyncio.sleep(0)
        answer = self._listening.get(os.stat(path).st_ino)  # noqa: PTH116
        if answer is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = socket.socketpair()  # only to tell who is there
        ours, theirs = _End(self, near, lambda: self.there), _End(self, far, lambda: self.back)
        ours.peer, theirs.peer = theirs, ours
        for end, protocol in ((ours, protocol_factory()), (theirs, answer())):
            end.set_protocol(protocol)
            protocol.connection_made(end)
        return ours, ours.get_protocol()


class _Server:
    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def close(self) -> None:
        self._close()


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: _End

    def __init__(self, loop: VirtualLoop, sock: socket.socket, latency: Callable[[], float]) -> None:
        super().__init__({"socket": sock})
        self._loop = loop
        self._sock = sock
        self._latency = latency
        self._protocol: asyncio.BaseProtocol
        self._coming: deque[bytes | None] = deque()  # None: the end
        self._closing = False
        self._lost = False
        loop.ends += 1

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing:
            return
        if self.peer._closing:
            self._closing = True
            self._loop.call_soon(self._lose, BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
        else:
            self._send(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send(None)
            self._loop.call_soon(self._lose, None)

    abort = close

    def _send(self, what: bytes | None) -> None:
        self.peer._coming.append(what)
        self._loop.call_later(self._latency(), self.peer._deliver)

    def _deliver(self) -> None:
        what = self._coming.popleft()  # in order, even if a later word had the shorter way
        if self._lost or not isinstance(self._protocol, asyncio.Protocol):
            return
        if what is None:
            self._protocol.eof_received()
        else:
            self._protocol.data_received(what)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.ends -= 1
            self._protocol.connection_lost(error)
            self._sock.close()
