"""The tunnel's two ends without a kernel: real control channels over the loopback, and data planes that only listen."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import socket
import ssl
import struct
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.tunnel import greeting, gtun, identity, keys, planes, server, tun
from appliance.tunnel.clients import Registry
from appliance.tunnel.config import LinkConfig, TunnelConfig
from appliance.tunnel.dataplane import Alive, Ready, Report, Traffic
from appliance.tunnel.strays import Strays

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

LIMIT = 10.0
KEY = b"k" * 32


class FakePlane:
    """A data plane that carries at once, and keeps what it was told."""

    all: list[FakePlane]

    def __init__(self, device: str, answered: Callable[[], None] = lambda: None, **_named: object) -> None:
        self.device, self.traffic, self.died, self.answered_at = device, Traffic(), False, math.inf
        self.told: list[tuple[str, Any]] = []
        self.opens: list[keys.Session] = []
        self.seals: keys.Session | None = None
        self._reports: asyncio.Queue[Report] = asyncio.Queue()
        self.works = asyncio.Event()
        self.works.set()
        self.all.append(self)

    async def start(self) -> None:
        self.told.append(("start", self.device))

    async def awake(self) -> None:
        await self.works.wait()

    def begin(self, session: keys.Session, *_rest: object, **_named: object) -> None:
        self.opens, self.seals, self._reports = [session], session, asyncio.Queue()
        self._reports.put_nowait(Alive(session.session_id))

    def connect(self, number: int, sock: socket.socket) -> None:
        self.told.append(("connect", number))
        sock.close()

    def connect_datagram(self, sock: socket.socket) -> None:
        sock.close()

    def install(self, session: keys.Session, *, switch: bool) -> None:
        self.opens.append(session)
        if switch:
            self.switch(session)
        self._reports.put_nowait(Ready(session.session_id, session.epoch))

    def switch(self, session: keys.Session) -> None:
        assert session == self.opens[-1]
        self.seals = session
        peers = [other for other in self.all if other is not self and other.opens]
        assert all(self.seals in other.opens for other in peers), "it seals what its peer cannot open yet"

    def say(self, report: Report) -> None:
        """Report something to its parent."""
        self._reports.put_nowait(report)

    @property
    def epoch(self) -> int:
        """Return the epoch in which it seals."""
        return self.seals.epoch if self.seals else -1

    def end(self) -> None:
        self.told.append(("end", None))

    async def close(self) -> None:
        self.told.append(("close", None))

    async def report(self, _session_id: bytes) -> Report:
        return await self._reports.get()


class Ends:
    """A gtund's server, and links to it or to another one."""

    def __init__(self, directory: Path) -> None:
        subnet = IPv4Network("100.64.240.0/24")
        self.tunnel = TunnelConfig(serve=(IPv4Network("10.244.0.0/16"),), subnet=subnet)
        self.registry = Registry(directory / "clients", subnet, self.tunnel.gateway, self.tunnel.first)
        self.identity = identity.ensure(directory)
        self.pin = identity.pin_of_file(self.identity)
        self.tls = identity.server_context(self.identity)
        self.enrol("shenzhen", KEY)

    def enrol(self, name: str, key: bytes) -> None:
        """Register a client that has this key."""
        _, secret = self.registry.add(name, time.time())
        assert self.registry.admit(name, key, secret, time.time())

    @contextlib.asynccontextmanager
    async def gtund(self) -> AsyncIterator[tuple[server.Server, int]]:
        """Run a server on the loopback until the block ends."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        made = server.Server(self.registry, self.tunnel, self.tls, Strays(listener.family, listener.getsockname()))
        with listener:
            async with _running(made.run(listener)):
                yield made, listener.getsockname()[1]

    @contextlib.asynccontextmanager
    async def gtun(self, port: int, **options: Any) -> AsyncIterator[gtun.Gtun]:
        """Run a link to that port until the block ends."""
        config = LinkConfig(
            "hk", "tun-hk", f"127.0.0.1:{port}", self.pin, "shenzhen", base64.b64encode(KEY).decode(), **options
        )
        made = gtun.Gtun(config, Path("hk.toml"))
        async with _running(made.run(None)):
            yield made


@contextlib.asynccontextmanager
async def _running(what: Any) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(what)
        try:
            yield
        finally:
            task.cancel()


def without_a_kernel(patch: pytest.MonkeyPatch) -> None:
    """Have both ends use data planes of this file, and no devices."""
    patch.setattr(FakePlane, "all", [], raising=False)
    patch.setattr(gtun, "DataPlane", FakePlane)
    patch.setattr(planes, "DataPlane", FakePlane)
    for name in ("configure", "destroy"):
        patch.setattr(tun, name, lambda *_: None)
    for name in ("lacks", "occupied"):
        patch.setattr(tun, name, lambda *_: None)
    patch.setattr(tun, "exists", lambda _: True)


async def until(condition: Any) -> None:
    """Return when the condition is true."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Line:
    """A control channel whose one end the test plays, message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Line:
        """Connect to a server as a client does."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=identity.client_context(), server_hostname=""))

    def say(self, **message: object) -> None:
        body = json.dumps(message).encode()
        self.writer.write(struct.pack("!I", len(body)) + body)

    async def hear(self) -> dict[str, Any]:
        """Return the next message; {} at the end."""
        async with asyncio.timeout(LIMIT):
            try:
                length = int.from_bytes(await self.reader.readexactly(4))
                return dict(json.loads(await self.reader.readexactly(length)))
            except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                return {}

    def close(self) -> None:
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def gtund_played(ends: Ends) -> AsyncIterator[tuple[asyncio.Queue[Line], int]]:
    """Listen as a gtund does; yield the control channels as they come, and the port. Data connections are taken."""
    lines: asyncio.Queue[Line] = asyncio.Queue()
    context = ends.tls

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.put_nowait(Line(reader, writer))

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    kept: list[Any] = []

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            kept.append(sock)
            if await greeting.first_byte(sock) == b"n":
                continue
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader, arrive)
            await loop.connect_accepted_socket(lambda protocol=protocol: protocol, sock, ssl=context)  # type: ignore[misc]
            kept.append(protocol)

    async with _running(accept()):
        yield lines, listener.getsockname()[1]
    for each in kept:
        if hasattr(each, "close"):
            each.close()
    listener.close()


def random() -> str:
    """Return an end's random bytes as they are on the wire."""
    return base64.b64encode(os.urandom(keys.RANDOM)).decode()
