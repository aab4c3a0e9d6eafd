"""The client's side of making a session's keys anew: when, and in which order. Thin; nothing here is secret for long.

    client                                   server
    rekey (32 random bytes)    -->           derives the epoch, has its data plane ready to open it
                               <--           rekeyed (32 random bytes)
    derives it, has its data plane ready
    to open it and seal in it
    switch                     -->           seals in it

Nobody seals in an epoch before the other end has said that it can open it, so no packet is lost. It is done after an
hour, after 2^32 records under one key, and whenever somebody asks on the control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import keys
from .dataplane import DataPlane, WorkerDied
from .messages import Capability, Rekey, Rekeyed, Switch
from .session import Conversation
from .standing import LinkDown

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSWER: Final = 10.0
"""Seconds in which a server has to answer; one that does not is not there any more."""

_LOOK_EVERY: Final = 1.0


class CannotRotate(Exception):
    """The keys cannot be made anew now; the message says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may do: for so many seconds, for so many records."""

    seconds: float = 3600.0
    records: int = 1 << 32

    def reached(self, age: float, used: int) -> bool:
        """Tell whether a key of this age, used so often, is to be followed by another."""
        return age >= self.seconds or used >= self.records


class Rotation:
    """The keys of one open session. `send` takes the conversation's words to the server."""

    def __init__(
        self,
        conversation: Conversation,
        send: Callable[[], None],
        plane: DataPlane,
        session: keys.Session,
        limits: Limits,
    ) -> None:
        self.session = session
        self._conversation, self._send, self._plane, self._limits = conversation, send, plane, limits
        self._since = asyncio.get_running_loop().time()
        self._asked = asyncio.Event()
        self._answer: asyncio.Future[Rekeyed] | None = None
        self._readies: asyncio.Queue[int] = asyncio.Queue()
        self._waiting: list[asyncio.Future[int]] = []

    async def run(self) -> LinkDown | WorkerDied:
        """Make the keys anew whenever it is time; return why that cannot be done."""
        try:
            while True:
                await self._due()
                async with asyncio.timeout(_ANSWER):
                    await self._rotate()
        except TimeoutError:
            return LinkDown("gone", f"the server says nothing on the control channel for {_ANSWER:.0f} seconds")
        except (LinkDown, WorkerDied) as error:
            return error
        finally:
            for future in self._waiting:
                future.cancel()

    async def now(self) -> int:
        """Make the keys anew now and return the epoch that has begun; raise `CannotRotate`."""
        if Capability.REKEY not in self._conversation.capabilities:
            raise CannotRotate("the server is too old to make keys anew within a session")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                raise
            raise CannotRotate("the session ended meanwhile") from None

    def answered(self, rekeyed: Rekeyed) -> None:
        """Take the server's part; raise `LinkDown` where it was not asked for."""
        if self._answer is None or self._answer.done():
            raise LinkDown("protocol", "the server makes keys anew, and nobody asked for it")
        self._answer.set_result(rekeyed)

    def ready(self, epoch: int) -> None:
        """Hear that our data plane opens what is sealed in this epoch."""
        self._readies.put_nowait(epoch)

    async def _due(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._asked.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._asked.wait()
            capable = Capability.REKEY in self._conversation.capabilities
            if capable and self._limits.reached(loop.time() - self._since, self._used()):
                return

    def _used(self) -> int:
        """Return how often the busiest key of this epoch was used; a report of the last epoch says nothing."""
        match self._plane.traffic.channels:
            case {"epoch": epoch, "key_used": int(used)} if epoch == self.session.epoch:
                return used
        return 0

    async def _theirs(self, epoch: int, ours: bytes) -> bytes:
        """Give the server our part of an epoch and return its own."""
        self._answer = asyncio.get_running_loop().create_future()
        self._conversation.rekey(Rekey(epoch, ours))
        self._send()
        answer = await self._answer
        if answer.epoch != epoch:
            raise LinkDown("protocol", f"the server answers for epoch {answer.epoch}, asked for {epoch}")
        return answer.random

    async def _rotate(self) -> None:
        if self.session.epoch >= keys.LAST_EPOCH:
            raise LinkDown("gone", "the session is out of epochs")
        self._asked.clear()
        waiting, self._waiting = self._waiting, []
        epoch, ours = self.session.epoch + 1, os.urandom(keys.RANDOM)
        try:
            self.session = self.session.renew(ours, await self._theirs(epoch, ours))
            self._plane.install(self.session, switch=True)
            while await self._readies.get() != epoch:
                pass
            self._conversation.switch(Switch(epoch))
            self._send()
            self._since = asyncio.get_running_loop().time()
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        for future in waiting:
            if not future.done():
                future.set_result(epoch)
