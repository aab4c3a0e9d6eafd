"""An open session from the client's side, until something ends it: what the server says, and the data connections.

Things go on side by side, and the first that ends, ends the session: the control channel is listened to, the data plane
is listened to, each data connection that is missing is opened, and keys are made anew. None of them waits for
another: while a connection is being opened to a server that is gone, the data plane is still heard saying so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
from collections.abc import AsyncGenerator
from typing import Final

from . import config, frame, keys
from .backoff import Backoff
from .dataplane import DataPlane, Lost, Over, Ready, WorkerDied
from .messages import Event, Goodbye, Rekeyed
from .race import first
from .rotation import Limits, Rotation
from .session import Conversation
from .standing import LinkDown
from .tls import Line

log = logging.getLogger("gtun")

_PATIENCE: Final = 10.0
"""Seconds for a data connection to come about."""

_SETTLED: Final = 10.0
"""Seconds after which a data connection is no failure, whatever ends it."""

_READ: Final = 16 << 10
_TCP_USER_TIMEOUT_MS: Final = 10_000


class Opened:
    """One open session of a link. `control` and `said` are its control channel, as the handshake left it."""

    def __init__(
        self,
        link: config.LinkConfig,
        plane: DataPlane,
        conversation: Conversation,
        said: AsyncGenerator[Event, None],
        control: Line,
        session: keys.Session,
    ) -> None:
        self._plane, self._said, self._control, self._connections = plane, said, control, link.connections
        self._missing: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(link.connections)]
        self.rotation = Rotation(
            conversation,
            lambda: control.write(conversation.to_send()),
            plane,
            session,
            Limits(link.rekey_seconds, link.rekey_records),
        )

    async def over(self) -> LinkDown | WorkerDied:
        """Return why the session ended."""
        slots = (self._keep(missing) for missing in self._missing)
        return await first(self._control_over(), self._data_over(), self.rotation.run(), *slots)

    async def _control_over(self) -> LinkDown | WorkerDied:
        try:
            async for event in self._said:
                match event:
                    case Rekeyed():
                        self.rotation.answered(event)
                    case Goodbye(code, reason):
                        return LinkDown(code, f"the server ended the session: {reason}")
                    case other:
                        return LinkDown("protocol", f"the server sent {type(other).__name__} in an open session")
        except LinkDown as end:
            return end
        except (frame.RemoteProtocolError, OSError) as error:
            return LinkDown("gone", f"the control connection broke: {error}")
        return LinkDown("gone", "the control connection ended")  # never: `said` raises

    async def _data_over(self) -> LinkDown | WorkerDied:
        """Ask for all data connections but the first, which is there, and for a new one for each that ends."""
        for number in range(1, self._connections):
            self._lack(number)
        try:
            while True:
                match await self._plane.report(self.rotation.session.session_id):
                    case Over(_, why):
                        return LinkDown("gone", why)
                    case Ready(_, epoch):
                        self.rotation.ready(epoch)
                    case Lost(_, number):
                        self._lack(number + self._connections)
        except WorkerDied as error:
            return error

    def _lack(self, number: int) -> None:
        """Ask for a data connection of this number."""
        self._missing[number % self._connections].put_nowait(number)

    async def _keep(self, missing: asyncio.Queue[int]) -> LinkDown | WorkerDied:
        """Keep one data connection open, again and again under a number that was never used.

        One that cannot be opened, or ends at once, costs the session nothing, as long as others carry (whether any
        does, the data plane judges): somebody in between may allow only so many. It is tried ever more rarely.
        """
        clock, backoff, began = asyncio.get_running_loop().time, Backoff(random.random), -math.inf
        while (number := await missing.get()) < keys.DATAGRAMS:
            if clock() - began > _SETTLED:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())
            try:
                async with asyncio.timeout(_PATIENCE):
                    self._plane.connect(number, await open_data(self._control, self.rotation.session, number))
            except WorkerDied as error:
                return error
            except OSError as error:
                log.warning(
                    "data connection %d cannot be opened: %s", number, error.strerror or str(error) or "no answer"
                )
                missing.put_nowait(number + self._connections)
            began = clock()
        return LinkDown("gone", "the session is out of connection numbers")


async def said(conversation: Conversation, line: Line) -> AsyncGenerator[Event, None]:
    """Yield what the server says; raise `LinkDown` when it hangs up."""
    while data := await line.read(_READ):
        for event in conversation.receive(data):
            yield event
    raise LinkDown("gone", "the server closed the control connection")


async def open_data(control: Line, session: keys.Session, number: int) -> socket.socket:
    """Connect once more to where the control channel ended up, and show that it is us."""
    peer = control.peer
    sock = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, peer)
        preface = frame.PREFACE.pack(frame.PREFACE_MAGIC, session.session_id, number, session.proof(number))
        await loop.sock_sendall(sock, preface)
    except BaseException:
        sock.close()
        raise
    return sock


def open_datagram(control: Line) -> socket.socket:
    """Return a UDP socket connected to where the control channel ended up."""
    peer = control.peer
    sock = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(peer)
    return sock
