"""gtund's life with its clients: who comes in, which session is theirs, when it ends.

A client has one session, and the newest that could prove itself is the one: a client that lost its line need not wait
for the old one to be missed. Strangers are the door's business, data planes and devices those of `planes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import time
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from appliance.notify import Watchdog

from . import frame, keys, nat
from .clients import Client, Registry
from .config import TunnelConfig
from .dataplane import WorkerDied
from .door import Door
from .messages import CAPABILITIES, Hello, Refusal, Welcome, choose_version
from .planes import Planes
from .served import Served
from .session import Conversation
from .strays import Strays
from .tls import Line

log = logging.getLogger("gtund")

_LOOK_EVERY: Final = 1.0


class Server:
    """All clients of this gtund."""

    def __init__(self, registry: Registry, tunnel: TunnelConfig, tls: ssl.SSLContext, strays: Strays) -> None:
        self._registry, self._tunnel, self._strays = registry, tunnel, strays
        self._door, self._planes = Door(tls, self), Planes(registry, tunnel)
        self._opening: dict[str, asyncio.Lock] = {}
        self._watchdog = Watchdog()
        self.served: dict[str, Served] = {}
        self._sessions: dict[bytes, Served] = {}

    async def run(self, listener: socket.socket) -> None:
        """Accept until cancelled; `listener` is bound, listening and non-blocking."""
        try:
            # The door closes first: a group that ends takes nobody more.
            async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
                group.create_task(self._cut_removed())
                stack.enter_context(self._strays.watched(self._sessions.__contains__, self._hand_on))
                stack.enter_context(self._door.open(listener, group))
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            for served in tuple(self.served.values()):
                served.end(Refusal.STOPPING, "gtund stops")
            await self._planes.close()

    def report(self) -> dict[str, object]:
        """Return who is connected, for the control socket."""
        refused = nat.refused()
        return {
            "turned_away": self._door.turned_away,
            "tasks": len(asyncio.all_tasks()),
            "clients": {
                name: {
                    "source": served.source,
                    "since": served.since,
                    "address": served.client.address,
                    **served.plane.traffic.report(refused.get(served.plane.device, {})),
                }
                for name, served in self.served.items()
            },
        }

    # --- what comes through the door -------------------------------------------------------------------------------

    def admit(self, conversation: Conversation, hello: Hello, source: str) -> Client | None:
        """Return whose hello that is; None for nobody's, which `conversation` has been told then."""
        if choose_version(hello.versions) is None:
            conversation.refuse(Refusal.VERSION, "no protocol version in common: upgrade the older end")
            return None
        client = self._registry.admit(hello.name, hello.key, hello.join, time.time())
        if client is None:
            log.warning("refused a client from %s: no such client, or another key", source)
            conversation.refuse(
                Refusal.DENIED,
                "no client of that name has this key, and the join token is spent or expired",
            )
        return client

    async def serve(self, client: Client, hello: Hello, conversation: Conversation, line: Line, source: str) -> None:
        """See a client's session through."""
        served, ours = await self._begin(client, hello, conversation, line, source)
        lease = IPv4Interface(f"{client.address}/{self._tunnel.subnet.prefixlen}")
        conversation.welcome(
            Welcome(
                choose_version(hello.versions) or 0,
                served.session.session_id,
                ours,
                lease,
                self._tunnel.gateway,
                self._tunnel.mtu,
                self._tunnel.six(lease.ip),
                capabilities=CAPABILITIES,
            )
        )
        line.write(conversation.to_send())
        log.info("client %s came in from %s with %s", client.name, source, client.address)
        try:
            reason = await served.until_over(self._strays.connected)
        finally:
            if self.served.get(client.name) is served:
                self._take_out(client.name)
                served.end(Refusal.BROKEN, "the session broke")
            gc.collect()  # what a session leaves refers to itself, and would lie there for long
        log.info("client %s is gone: %s", client.name, reason)

    async def _begin(
        self, client: Client, hello: Hello, conversation: Conversation, line: Line, source: str
    ) -> tuple[Served, bytes]:
        """Begin a session in the place of the one that there may be; return it, and our part of its secret."""
        async with self._opening.setdefault(client.name, asyncio.Lock()):
            plane = await self._planes.of(client)
            if (old := self._take_out(client.name)) is not None:
                old.end(Refusal.REPLACED, "the same client opened a newer session")
            session_id, ours = os.urandom(keys.SESSION_ID), os.urandom(keys.RANDOM)
            session = keys.Session.agree(session_id, hello.random, ours)
            six = self._tunnel.six(IPv4Address(client.address))
            sources = [f"{client.address}/32", *([f"{six.ip}/128"] if six else []), *client.prefixes]
            plane.begin(session, "server", sources, hello.connections, hello.mode.value)
            served = Served(client, session, plane, conversation, line, source)
            self.served[client.name] = self._sessions[session_id] = served
        return served, ours

    def _take_out(self, name: str) -> Served | None:
        """Take out a client's session; None if it has none."""
        served = self.served.pop(name, None)
        if served is not None:
            del self._sessions[served.session.session_id]
        return served

    def take_data(self, preface: bytes, sock: socket.socket) -> None:
        """Take a data connection, or raise `RemoteProtocolError`."""
        magic, session_id, number, proof = frame.PREFACE.unpack(preface)
        served = self._sessions.get(session_id)
        if magic != frame.PREFACE_MAGIC or served is None:
            raise frame.RemoteProtocolError("a data connection of no session")
        served.connect(number, proof, sock)

    def _hand_on(self, session_id: bytes, datagram: bytes, address: tuple[str | int, ...]) -> None:
        with contextlib.suppress(WorkerDied):
            self._sessions[session_id].plane.stray(datagram, address)

    # --- who is removed --------------------------------------------------------------------------------------------

    async def _cut_removed(self) -> None:
        """End the session of a client that is removed. The look also feeds the watchdog, while all data planes live."""
        self._planes.clear_up()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for name in self._planes.removed():
                if (served := self._take_out(name)) is not None:
                    served.end(Refusal.REMOVED, "the client was removed")
                await self._planes.forget(name)
            if self._planes.all_answer():
                self._watchdog.progressed()
