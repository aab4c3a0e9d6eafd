"""One client's open session at gtund: what its control channel and its data plane say to each other.

The order in which keys are made anew is in `rotation`; this is the server's side of it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import socket
from typing import Final

from . import frame, keys
from .clients import Client
from .dataplane import DataPlane, Over, Ready, Roamed, WorkerDied
from .gate import PATIENCE
from .messages import Goodbye, Refusal, Rekey, Rekeyed, Switch
from .race import first
from .session import Conversation
from .tls import Line

_READ: Final = 16 << 10


@dataclass(slots=True, eq=False)
class Served:
    """One client with an open session."""

    client: Client
    session: keys.Session
    plane: DataPlane
    conversation: Conversation
    line: Line
    source: str
    since: float = field(default_factory=time.time)
    connections: set[int] = field(default_factory=set)
    last: keys.Session | None = None
    next: tuple[keys.Session, bytes] | None = None

    def connect(self, number: int, proof: bytes, sock: socket) -> None:
        """Give the data plane a data connection; raise `RemoteProtocolError` if it does not belong there."""
        if not self._proven(number, proof) or number in self.connections or number == keys.DATAGRAMS:
            raise frame.RemoteProtocolError("a data connection without proof, or one that was there before")
        self.connections.add(number)
        self.plane.connect(number, sock)

    async def until_over(self, connected: Callable[[tuple[str | int, ...]], socket]) -> str:
        """Return why the session ended: by the client's word, its line, or silence in the tunnel.

        `connected` returns a UDP socket on our port for an address that the client has moved to.
        """
        return await first(self._control_over(), self._data_over(connected))

    def end(self, code: Refusal, reason: str) -> None:
        """Say goodbye, end the data plane's session, and close."""
        self.plane.end()
        self.conversation.goodbye(code, reason)
        self.line.write(self.conversation.to_send())
        self.line.close()

    async def _control_over(self) -> str:
        try:
            while data := await self.line.read(_READ):
                for event in self.conversation.receive(data):
                    match event:
                        case Rekey():
                            self._rekey(event)
                        case Switch():
                            self._switch(event)
                        case Goodbye(_, reason):
                            return reason
        except (OSError, frame.RemoteProtocolError, WorkerDied) as error:
            return f"its control connection broke: {error}"
        return "it closed the control connection"

    async def _data_over(self, connected: Callable[[tuple[str | int, ...]], socket]) -> str:
        try:
            while True:
                match await self.plane.report(self.session.session_id):
                    case Over(_, why):
                        return why
                    case Ready():
                        self._ready()
                    case Roamed(_, address):
                        self.plane.connect_datagram(connected(address))
        except (WorkerDied, OSError) as error:
            return str(error)

    def _proven(self, number: int, proof: bytes) -> bool:
        """Tell whether a data connection is of this session; the client may not know of the newest epoch yet."""
        known = (self.session, self.last)
        return any(hmac.compare_digest(each.proof(number), proof) for each in known if each is not None)

    def _rekey(self, asked: Rekey) -> None:
        """Prepare the next epoch; `_ready` goes on. Raise `RemoteProtocolError` if it is not the next one's turn."""
        if asked.epoch != self.session.epoch + 1 or self.next is not None:
            raise frame.RemoteProtocolError(f"epoch {asked.epoch} is asked for in epoch {self.session.epoch}")
        ours = os.urandom(keys.RANDOM)
        self.next = self.session.renew(asked.random, ours), ours
        self.plane.install(self.next[0], switch=False)

    def _ready(self) -> None:
        """Tell the client that what it seals in the next epoch can be opened."""
        if self.next is not None:
            self.last, self.session = self.session, self.next[0]
            self.conversation.rekeyed(Rekeyed(self.session.epoch, self.next[1]))
            self.line.write(self.conversation.to_send())

    def _switch(self, told: Switch) -> None:
        """Seal in the new epoch: the client opens it. Raise `RemoteProtocolError` if there is none."""
        if self.next is None or told.epoch != self.session.epoch:
            raise frame.RemoteProtocolError(f"a switch to epoch {told.epoch} in epoch {self.session.epoch}")
        self.next = None
        self.plane.switch(self.session)
        asyncio.get_running_loop().call_later(PATIENCE, self._forget, self.last)

    def _forget(self, session: keys.Session | None) -> None:
        """Forget an epoch's secret: no data connection begins with it any more."""
        if self.last is session:
            self.last = None
