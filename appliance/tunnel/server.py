"""gtund's life with its clients: who comes in, which session is theirs, when it ends.

One TCP port serves both kinds of connection, told apart by their first byte: TLS is a control channel, the preface of
`frame` a data connection, which is handed to the client's own worker process. A client has one session, and the newest
that could prove itself is the one: a client that lost its line need not wait for the old one to be missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import secrets
import socket
import ssl
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from appliance.notify import Watchdog

from . import frame, greeting, keys, nat, tun
from .clients import Client, DamagedClient, Registry, UnknownClient
from .config import Network, TunnelConfig
from .dataplane import DataPlane, Over, Ready, Roamed, WorkerDied
from .gate import PATIENCE, Gate, Pace, Place
from .race import first, hang_up, keep_alive
from .session import (
    CAPABILITIES,
    Conversation,
    Goodbye,
    Hello,
    Refusal,
    Rekey,
    Rekeyed,
    Role,
    Switch,
    Welcome,
    choose_version,
)
from .strays import Strays

log = logging.getLogger("gtund")

_READ: Final = 16 << 10
_ACCEPTS: Final = 32
_PAUSE: Final = 0.2
_LOOK_EVERY: Final = 1.0
_ALIAS: Final = "gtund client "
_SILENT: Final = 10.0
"""Seconds without a word of a data plane, which reports each second, after which the watchdog is not fed any more."""


@dataclass(slots=True, eq=False)
class Served:
    """One client with an open session."""

    client: Client
    session: keys.Session
    plane: DataPlane
    conversation: Conversation
    writer: asyncio.StreamWriter
    source: str
    since: float = field(default_factory=time.time)
    connections: set[int] = field(default_factory=set)
    last: keys.Session | None = None
    next: tuple[keys.Session, bytes] | None = None

    def proven(self, number: int, proof: bytes) -> bool:
        """Tell whether a data connection is of this session; the client may not know of the newest epoch yet."""
        known = (self.session, self.last)
        return any(hmac.compare_digest(each.proof(number), proof) for each in known if each is not None)

    def rekey(self, asked: Rekey) -> None:
        """Prepare the next epoch; `ready` goes on. Raise `RemoteProtocolError` if it is not the next one's turn."""
        if asked.epoch != self.session.epoch + 1 or self.next is not None:
            raise frame.RemoteProtocolError(f"epoch {asked.epoch} is asked for in epoch {self.session.epoch}")
        ours = os.urandom(keys.RANDOM)
        self.next = self.session.renew(asked.random, ours), ours
        self.plane.install(self.next[0], switch=False)

    def ready(self) -> None:
        """Tell the client that what it seals in the next epoch can be opened."""
        if self.next is not None:
            self.last, self.session = self.session, self.next[0]
            self.conversation.rekeyed(Rekeyed(self.session.epoch, self.next[1]))
            self.writer.write(self.conversation.to_send())

    def switch(self, told: Switch) -> None:
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

    def end(self, code: Refusal, reason: str) -> None:
        """Say goodbye, end the data plane's session, and close."""
        self.plane.end()
        self.conversation.goodbye(code, reason)
        self.writer.write(self.conversation.to_send())
        self.writer.close()


class Server:
    """All clients of this gtund."""

    def __init__(self, registry: Registry, tunnel: TunnelConfig, tls: ssl.SSLContext, strays: Strays) -> None:
        self._registry, self._tunnel, self._tls, self._strays = registry, tunnel, tls, strays
        self._gate, self._pace = Gate(), Pace()
        self._waiting: list[asyncio.Future[None]] = []
        self._planes: dict[str, DataPlane] = {}
        self._owners: dict[str, Client] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._watchdog = Watchdog()
        self.served: dict[str, Served] = {}

    async def run(self, listener: socket.socket) -> None:
        """Accept until cancelled; `listener` is bound, listening and non-blocking."""
        # Who connects and says nothing is the kernel's to keep, as long as it keeps it (tcp(7)).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(PATIENCE))
        loop = asyncio.get_running_loop()
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                group.create_task(self._cut_removed())
                stack.enter_context(self._strays.watched(self._hand_on))
                loop.add_reader(listener, self._accept, listener, group)
                stack.callback(loop.remove_reader, listener)
                await loop.create_future()  # until cancelled
        finally:
            for served in tuple(self.served.values()):
                served.end(Refusal.STOPPING, "gtund stops")
            for plane in self._planes.values():
                await plane.close()

    def report(self) -> dict[str, object]:
        """Return who is connected, for the control socket."""
        refused = nat.refused()
        return {
            "turned_away": self._gate.turned_away,
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

    def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        """Take a few of those that wait. What is plainly no client of ours costs no more than this."""
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:  # nobody waits
                return
            except OSError as error:  # out of descriptors, say: who is in goes on
                log.error("cannot accept a connection: %s", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(_PAUSE, loop.add_reader, listener, self._accept, listener, group)
                return
            sock.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            source = address[0].removeprefix("::ffff:")
            if not greeting.plausible(sock) or (place := self._gate.enter(source)) is None:
                sock.close()
                continue
            place.cut = group.create_task(self._receive(sock, source, place)).cancel

    async def _receive(self, sock: socket.socket, source: str, taken: Place) -> None:
        """See one connection through; whatever it does, only itself ends."""
        with contextlib.ExitStack() as place:
            place.callback(self._gate.leave, taken)
            try:
                if await greeting.first_byte(sock) == frame.PREFACE_MAGIC[:1]:
                    await self._take_data(sock)
                else:
                    await self._take_control(sock, source, place)
            except (OSError, frame.RemoteProtocolError, WorkerDied, asyncio.IncompleteReadError) as error:
                log.debug("a connection from %s ended: %s", source, error)
            except (tun.DeviceRefused, tun.DeviceBusy) as error:
                log.error("no device for a client: %s", error)
            except Exception:
                log.exception("a connection from %s met a mistake of ours", source)

    def _hand_on(self, session_id: bytes, datagram: bytes, address: tuple[str | int, ...]) -> None:
        served = self._session(session_id)
        if served is not None:
            with contextlib.suppress(WorkerDied):
                served.plane.stray(datagram, address)

    def _session(self, session_id: bytes) -> Served | None:
        return next((served for served in self.served.values() if served.session.session_id == session_id), None)

    # --- data connections ------------------------------------------------------------------------------------------

    async def _take_data(self, sock: socket.socket) -> None:
        with contextlib.closing(sock):  # the worker gets a descriptor of its own
            async with asyncio.timeout(PATIENCE):
                preface = await greeting.read_exactly(sock, frame.PREFACE.size)
            magic, session_id, number, proof = frame.PREFACE.unpack(preface)
            served = self._session(session_id)
            if magic != frame.PREFACE_MAGIC or served is None:
                raise frame.RemoteProtocolError("a data connection of no session")
            if not served.proven(number, proof) or number in served.connections or number == keys.DATAGRAMS:
                raise frame.RemoteProtocolError("a data connection without proof, or one that was there before")
            served.connections.add(number)
            served.plane.connect(number, sock)

    # --- control channels ------------------------------------------------------------------------------------------

    async def _take_control(self, sock: socket.socket, source: str, place: contextlib.ExitStack) -> None:
        reader = asyncio.StreamReader(limit=frame.BEFORE_AUTH)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        keep_alive(sock)
        async with asyncio.timeout(PATIENCE):
            try:
                await greeting.awaited(sock)
                await self._turn()
            except BaseException:
                sock.close()
                raise
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._tls, ssl_handshake_timeout=PATIENCE, ssl_shutdown_timeout=1
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            conversation = Conversation(Role.SERVER)
            try:
                hello = await _hello(conversation, reader)
                client = self._admit(conversation, hello, source)
            except BaseException:
                hang_up(writer)
                raise
        if client is None:
            async with asyncio.timeout(PATIENCE):
                writer.write(conversation.to_send())
                writer.close()
                await writer.wait_closed()
            return
        place.close()  # it is no stranger any more
        try:
            await self._serve(client, hello, conversation, reader, writer, source)
        finally:
            hang_up(writer)

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

    def _admit(self, conversation: Conversation, hello: Hello, source: str) -> Client | None:
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

    async def _serve(
        self,
        client: Client,
        hello: Hello,
        conversation: Conversation,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        source: str,
    ) -> None:
        async with self._opening.setdefault(client.name, asyncio.Lock()):
            plane = await self._plane(client)
            if (old := self.served.pop(client.name, None)) is not None:
                old.end(Refusal.REPLACED, "the same client opened a newer session")
            async with asyncio.timeout(_SILENT):
                await plane.awake()  # what it is handed from the welcome on has to be answered in time
            session_id, ours = os.urandom(keys.SESSION_ID), os.urandom(keys.RANDOM)
            session = keys.Session.agree(session_id, hello.random, ours)
            six = self._tunnel.six(IPv4Address(client.address))
            sources = [f"{client.address}/32", *([f"{six.ip}/128"] if six else []), *client.prefixes]
            plane.begin(session, "server", sources, hello.connections, hello.mode.value)
            served = Served(client, session, plane, conversation, writer, source)
            self.served[client.name] = served
        lease = IPv4Interface(f"{client.address}/{self._tunnel.subnet.prefixlen}")
        version = choose_version(hello.versions) or 0
        welcome = Welcome(
            version, session_id, ours, lease, self._tunnel.gateway, self._tunnel.mtu, six, capabilities=CAPABILITIES
        )
        conversation.welcome(welcome)
        writer.write(conversation.to_send())
        log.info("client %s came in from %s with %s", client.name, source, client.address)
        try:
            reason = await self._until_over(served, reader)
        finally:
            if self.served.get(client.name) is served:
                del self.served[client.name]
                served.end(Refusal.BROKEN, "the session broke")
        log.info("client %s is gone: %s", client.name, reason)

    async def _until_over(self, served: Served, reader: asyncio.StreamReader) -> str:
        """Return why the session ended: by the client's word, its line, or silence in the tunnel."""
        return await first(
            _control_over(served, reader),
            self._data_over(served),
        )

    async def _data_over(self, served: Served) -> str:
        try:
            while True:
                match await served.plane.report(served.session.session_id):
                    case Over(_, why):
                        return why
                    case Ready():
                        served.ready()
                    case Roamed(_, address):
                        served.plane.connect_datagram(self._strays.connected(address))
        except (WorkerDied, OSError) as error:
            return str(error)

    async def _plane(self, client: Client) -> DataPlane:
        """Return the client's data plane, started at its first session and kept from then on."""
        plane = self._planes.get(client.name)
        if plane is None or plane.died:
            plane = DataPlane(device_of(client.name), gso=self._tunnel.gso)
            await plane.start()
            self._planes[client.name] = plane
        self._owners[client.name] = client
        tun.configure(plane.device, self._addressing(client))
        return plane

    def _addressing(self, client: Client) -> tun.Addressing:
        """Return how the client's device is set up on this side."""
        peer, gateway = IPv4Address(client.address), self._tunnel.gateway
        ours6, peer6 = self._tunnel.six(gateway), self._tunnel.six(peer)
        return tun.Addressing(
            IPv4Interface(f"{gateway}/32"),
            peer,
            self._tunnel.mtu,
            f"{_ALIAS}{client.name}",
            ours6,
            peer6.ip if peer6 else None,
            client.networks,
        )

    async def _cut_removed(self) -> None:
        """End the session of a client that is not registered any more, or whose name now belongs to another.

        Its device goes with it, and the routes over that, so that no connection of its lives on. This look is also what
        feeds the watchdog, unless a data plane has fallen silent.
        """
        for device in tun.with_alias(_ALIAS):
            if device not in {device_of(name) for name in self._registry.names()}:
                tun.destroy(device)  # removed while no gtund ran
        tun.keep_behind(self._behind())
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for name, client in tuple(self._owners.items()):
                known = self._known(name)
                if known is None or known.key_sha256 != client.key_sha256:
                    if (served := self.served.pop(name, None)) is not None:
                        served.end(Refusal.REMOVED, "the client was removed")
                    await self._forget(name)
            silent_since = time.monotonic() - _SILENT
            if all(plane.died or plane.answered_at > silent_since for plane in self._planes.values()):
                self._watchdog.progressed()

    def _behind(self) -> list[Network]:
        return [network for client in self._registry.all() for network in client.networks]

    def _known(self, name: str) -> Client | None:
        try:
            return self._registry.get(name)
        except UnknownClient:
            return None
        except DamagedClient:
            return self._owners.get(name)

    async def _forget(self, name: str) -> None:
        del self._owners[name]
        plane = self._planes.pop(name, None)
        if plane is not None:
            await plane.close()
        tun.destroy(device_of(name))
        tun.keep_behind(self._behind())


def device_of(client: str) -> str:
    """Return the name of a client's device on this side."""
    return f"gt-{client}"


async def _hello(conversation: Conversation, reader: asyncio.StreamReader) -> Hello:
    while data := await reader.read(frame.BEFORE_AUTH):
        for event in conversation.receive(data):
            if isinstance(event, Hello):
                return event
    raise frame.RemoteProtocolError("it went away without a word")


async def _control_over(served: Served, reader: asyncio.StreamReader) -> str:
    try:
        while data := await reader.read(_READ):
            for event in served.conversation.receive(data):
                match event:
                    case Rekey():
                        served.rekey(event)
                    case Switch():
                        served.switch(event)
                    case Goodbye(_, reason):
                        return reason
    except (OSError, frame.RemoteProtocolError, WorkerDied) as error:
        return f"its control connection broke: {error}"
    return "it closed the control connection"
