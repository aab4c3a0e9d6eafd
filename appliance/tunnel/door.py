"""gtund's door: what happens to a connection before it is known whose it is, and how little of it.

One TCP port serves both kinds of connection, told apart by their first byte: TLS is a control channel, the preface of
`frame` a data connection. What is plainly neither costs an accept and a look at its first bytes; the rest has a place
(`gate`) for as long as its patience lasts, and takes turns at TLS, which is what strangers can make expensive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from collections.abc import Iterator
from typing import Final, Protocol

from . import frame, greeting, stranger, tun
from .clients import Client
from .dataplane import WorkerDied
from .gate import PATIENCE, Breath, Gate, Pace, Place
from .messages import Hello
from .session import Conversation, Role
from .tls import Line

log = logging.getLogger("gtund")

_ACCEPTS: Final = 512
"""At a time; more than come in the longest `Breath` of any flood that leaves the rest of the machine working."""

_PAUSE: Final = 0.2
"""Seconds until the next attempt where none can be accepted."""


class Inside(Protocol):
    """What is behind the door."""

    def admit(self, conversation: Conversation, hello: Hello, source: str) -> Client | None:
        """Return whose hello that is; None for nobody's, which `conversation` has been told then."""

    async def serve(self, client: Client, hello: Hello, conversation: Conversation, line: Line, source: str) -> None:
        """See a client's session through."""

    def take_data(self, preface: bytes, sock: socket.socket) -> None:
        """Take a data connection, or raise `RemoteProtocolError`."""


class Door:
    """Accepts strangers, and lets in those who are none."""

    def __init__(self, tls: ssl.SSLContext, inside: Inside) -> None:
        self._tls, self._inside = tls, inside
        self._gate, self._pace = Gate(), Pace()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def turned_away(self) -> int:
        """Return how many had no place, or lost theirs."""
        return self._gate.turned_away

    @contextlib.contextmanager
    def open(self, listener: socket.socket, group: asyncio.TaskGroup) -> Iterator[None]:
        """Accept for as long as the block runs; `listener` is bound, listening and non-blocking."""
        # Who connects and says nothing is the kernel's to keep, as long as it keeps it (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(PATIENCE))
        loop, fd = asyncio.get_running_loop(), listener.fileno()
        pause: asyncio.TimerHandle | None = None
        breath = Breath()

        def arrived() -> None:
            nonlocal pause
            loop.remove_reader(fd)
            seconds = breath.take(loop.time()) if self._accept(listener, group) else _PAUSE
            pause = loop.call_later(seconds, look)

        def look() -> None:
            breath.over(loop.time())
            loop.add_reader(fd, arrived)

        look()
        try:
            yield
        finally:
            if pause is not None:
                pause.cancel()
            loop.remove_reader(fd)

    def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> bool:
        """Take those that wait, but not too many; return False where the machine has no room for more.

        What is plainly no client of ours costs no more than this.
        """
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:  # nobody waits
                break
            except OSError as error:  # out of descriptors, say: who is in goes on
                log.error("cannot accept a connection: %s", error.strerror)
                return False
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            source = address[0].removeprefix("::ffff:")
            if greeting.plausible(sock) and (place := self._gate.enter(source)) is not None:
                stranger.receive(group, self._gate, place, sock, self._receive(sock, source, place))
            else:
                sock.close()
        return True

    async def _receive(self, sock: socket.socket, source: str, place: Place) -> None:
        """See one connection through; whatever it does, only itself ends."""
        try:
            await self._let_in(sock, source, place)
        except (OSError, frame.RemoteProtocolError, WorkerDied) as error:
            log.debug("a connection from %s ended: %s", source, error)
        except (tun.DeviceRefused, tun.DeviceBusy) as error:
            log.error("no device for a client: %s", error)
        except Exception:
            log.exception("a connection from %s met a mistake of ours", source)

    async def _let_in(self, sock: socket.socket, source: str, place: Place) -> None:
        async with asyncio.timeout(PATIENCE) as patience:
            if await greeting.first_byte(sock) == frame.PREFACE_MAGIC[:1]:
                self._inside.take_data(await greeting.read_exactly(sock, frame.PREFACE.size), sock)
                return
            await greeting.awaited(sock)
            await self._turn()
            line = Line(sock, self._tls, server_side=True)
            try:
                await line.shake_hands()
                conversation = Conversation(Role.SERVER)
                hello = await _hello(conversation, line)
                client = self._inside.admit(conversation, hello, source)
                if client is None:
                    line.write(conversation.to_send())
                    line.close()
                    return
                self._gate.leave(place)  # it is no stranger any more
                patience.reschedule(None)
                await self._inside.serve(client, hello, conversation, line, source)
            finally:
                line.hang_up()

    async def _turn(self) -> None:
        """Wait until a handshake may be done. Chance says who is next: in a queue, a crowd is always at one end."""
        loop = asyncio.get_running_loop()
        if not self._waiting and not self._pace.take(loop.time()):
            return
        turn: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_later(1 / self._pace.RATE, self._next_turn)
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = [turn for turn in self._waiting if not turn.done()]  # the others were cut while they waited
        if not self._waiting:
            return
        if not (pause := self._pace.take(loop.time())):
            greeting.settle(self._waiting.pop(secrets.randbelow(len(self._waiting))))
        loop.call_later(pause, self._next_turn)


async def _hello(conversation: Conversation, line: Line) -> Hello:
    while data := await line.read(frame.BEFORE_AUTH):
        for event in conversation.receive(data):
            if isinstance(event, Hello):
                return event
    raise frame.RemoteProtocolError("it went away without a word")
