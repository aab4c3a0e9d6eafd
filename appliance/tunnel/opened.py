"""An open session from the client's side, until something ends it: what the server says, and the data connections.

Four things go on side by side, and the first that ends, ends the session: the control channel is listened to, the data
plane is listened to, data connections that are missing are opened, and keys are made anew. None of them waits for
another: while a connection is being opened to a server that is gone, the data plane is still heard saying so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Final

from . import config, frame, keys
from .dataplane import DataPlane, Lost, Over, Ready, WorkerDied
from .race import first
from .rotation import Limits, Rotation
from .session import Conversation, Event, Goodbye, Rekeyed
from .standing import LinkDown
from .tls import Line

_PATIENCE: Final = 10.0
"""Seconds for a data connection to come about."""

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
        self._missing: asyncio.Queue[int] = asyncio.Queue()
        self.rotation = Rotation(
            conversation,
            lambda: control.write(conversation.to_send()),
            plane,
            session,
            Limits(link.rekey_seconds, link.rekey_records),
        )

    async def over(self) -> LinkDown | WorkerDied:
        """Return why the session ended."""
        return await first(self._control_over(), self._data_over(), self._fill_up(), self.rotation.run())

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
            self._missing.put_nowait(number)
        try:
            while True:
                match await self._plane.report(self.rotation.session.session_id):
                    case Over(_, why):
                        return LinkDown("gone", why)
                    case Ready(_, epoch):
                        self.rotation.ready(epoch)
                    case Lost(_, number):
                        self._missing.put_nowait(number + self._connections)
        except WorkerDied as error:
            return error

    async def _fill_up(self) -> LinkDown | WorkerDied:
        """Open the data connections that are asked for; a number is used once."""
        try:
            while (number := await self._missing.get()) < keys.DATAGRAMS:
                async with asyncio.timeout(_PATIENCE):
                    self._plane.connect(number, await open_data(self._control, self.rotation.session, number))
        except WorkerDied as error:
            return error
        except OSError as error:
            return LinkDown("gone", f"a data connection cannot be opened: {error.strerror or error}")
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
