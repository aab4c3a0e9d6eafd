"""gtun: the client's end of one link. It keeps one session with a gtund, for ever.

Each attempt: connect, TLS, check the pin before a word is said, say hello, take the lease, hand keys and a data
connection to the data plane, and stay until something ends. Then again, at once first, later ever more slowly. The TUN,
its address and every route over it stay where they are meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final, NoReturn

from appliance.notify import Watchdog, notify

from . import config, frame, identity, keys, report, tun, watch
from .backoff import Backoff
from .dataplane import DataPlane, Lost, Over, WorkerDied
from .legacy.client import Client
from .legacy.config import read_client
from .race import first, hang_up
from .session import VERSIONS, Conversation, Event, Goodbye, Hello, Mode, Role, Welcome
from .standing import LinkDown, Standing, State

log = logging.getLogger("gtun")

PATIENCE: Final = 10.0
"""Seconds for a server to answer, from the first SYN to the first echo."""

_READ: Final = 16 << 10
_TCP_USER_TIMEOUT_MS: Final = 10_000


class Gtun:
    """One link, from its file."""

    def __init__(self, link: config.LinkConfig) -> None:
        self._link = link
        self._watchdog = Watchdog()
        self._plane = self._new_plane()
        self._standing = Standing(State.CONNECTING, time.time())
        self._backoff = Backoff(random.random)
        self._repaired: Counter[str] = Counter()

    async def run(self, control: Path | None) -> NoReturn:
        """Keep the link up until cancelled; raise what `tun` raises when there is nothing to keep."""
        async with contextlib.AsyncExitStack() as stack:
            if control is not None:
                await stack.enter_async_context(report.serve(control, self.report))
            stack.push_async_callback(self._close_plane)
            while True:
                await self._open_device()
                notify("READY=1")  # whether the server answers or not: the device is there
                try:
                    while True:
                        await self._attempt()
                except WorkerDied as error:
                    # Somebody deleted the device, most likely. It is made anew here: starting afresh takes longer.
                    delay = self._backoff.failed()
                    log.warning("link %s: %s; the device is opened again in %.1f s", self._link.name, error, delay)
                    self._standing.become(State.DOWN, code="device", reason=str(error), retry_at=time.time() + delay)
                    await self._close_plane()
                    self._plane = self._new_plane()
                    await asyncio.sleep(delay)

    def _new_plane(self) -> DataPlane:
        return DataPlane(self._link.device, self._watchdog.progressed)

    async def _close_plane(self) -> None:
        await self._plane.close()

    def report(self) -> report.Report:
        """Return the link's state for the control socket."""
        standing, traffic = self._standing, self._plane.traffic
        up = standing.state is State.UP
        return {
            "name": self._link.name,
            "device": self._link.device,
            "pid": os.getpid(),
            "state": standing.state.value,
            "code": standing.code,
            "reason": standing.reason,
            "server": self._link.server,
            "address": standing.address,
            "peer": standing.peer,
            "since": standing.since,
            "retry_at": standing.retry_at,
            "rtt_ms": round(traffic.rtt * 1000, 3) if up and traffic.rtt is not None else None,
            "channels": traffic.channels if up else {},
            "counters": {**traffic.counters, **self._repaired},
        }

    async def _open_device(self) -> None:
        """Open the TUN; a predecessor's data plane may need a moment to die."""
        for _ in range(100):
            try:
                await self._plane.start()
            except tun.DeviceBusy:
                await asyncio.sleep(0.05)
            else:
                return
        raise tun.DeviceRefused(f"{self._link.device} stays busy: is another gtun running for this link?")

    async def _attempt(self) -> None:
        try:
            await self._session()
        except LinkDown as end:
            failure = end
        except TimeoutError:
            failure = LinkDown("timeout", f"{self._link.server} does not answer within {PATIENCE:.0f} seconds")
        except identity.PinMismatch as error:
            failure = LinkDown("pin-mismatch", f"{error}: somebody is in between, or gtund was set up anew")
        except frame.RemoteProtocolError as error:
            failure = LinkDown("protocol", f"{self._link.server} does not speak our protocol: {error}")
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            failure = LinkDown("unreachable", f"{self._link.server} cannot be reached: {why}")
        self._plane.end()
        delay = self._backoff.failed()
        log.warning("link %s is down: %s (%s); next try in %.1f s", self._link.name, failure, failure.code, delay)
        self._standing.become(State.DOWN, code=failure.code, reason=str(failure), retry_at=time.time() + delay)
        await asyncio.sleep(delay)

    async def _session(self) -> NoReturn:
        host, port = config.host_and_port(self._link.server, "server")
        async with asyncio.timeout(PATIENCE) as patience:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=identity.client_context(), server_hostname="", ssl_handshake_timeout=PATIENCE
            )
            try:
                identity.check_pin(writer.get_extra_info("ssl_object").getpeercert(binary_form=True), self._link.pin)
                conversation = Conversation(Role.CLIENT)
                welcome, session = await self._handshake(conversation, reader, writer)
                self._take_lease(welcome)
                self._plane.begin(session, "client", [], self._link.connections, self._link.channel.value)
                if self._link.channel is not Mode.STREAM:
                    self._plane.connect_datagram(_open_datagram(writer))
                self._plane.connect(0, await _open_data(writer, session, 0))
                await self._alive(session)
                patience.reschedule(None)
                log.info("link %s is up: %s via %s", self._link.name, welcome.address, self._link.server)
                self._backoff.succeeded()
                self._standing.become(State.UP)
                raise await first(
                    _control_over(conversation, reader), self._data_over(session, writer), self._device_lost(welcome)
                )
            finally:
                hang_up(writer)

    async def _handshake(
        self, conversation: Conversation, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Welcome, keys.Session]:
        ours = os.urandom(keys.RANDOM)
        key, join = base64.b64decode(self._link.key), base64.b64decode(self._link.join)
        conversation.hello(
            Hello(VERSIONS, self._link.client, key, join, ours, self._link.connections, self._link.channel)
        )
        writer.write(conversation.to_send())
        match await _next_event(conversation, reader):
            case Welcome() as welcome:
                return welcome, keys.Session.agree(welcome.session_id, ours, welcome.random)
            case Goodbye(code, reason):
                raise LinkDown(code, f"{self._link.server} refuses us: {reason}")
            case other:
                raise frame.RemoteProtocolError(f"{type(other).__name__} is no answer")

    def _take_lease(self, welcome: Welcome) -> None:
        try:
            tun.configure(self._link.device, self._addressing(welcome))
        except tun.DeviceRefused as error:
            raise self._refused(error) from None
        self._standing.address, self._standing.peer = str(welcome.address), str(welcome.gateway)

    def _addressing(self, welcome: Welcome) -> tun.Addressing:
        alias = f"nexthop link {self._link.name}"
        return tun.Addressing(welcome.address, None, welcome.mtu, alias, welcome.address6)

    def _refused(self, error: tun.DeviceRefused) -> LinkDown | WorkerDied:
        """Return what it means that the device cannot be set up: deleted, it has to be opened anew."""
        if not tun.exists(self._link.device):
            return WorkerDied(f"somebody deleted {self._link.device}")
        return LinkDown("device", str(error))

    async def _device_lost(self, welcome: Welcome) -> LinkDown | WorkerDied:
        """Put back what somebody takes from the device in an open session; return why that cannot be done."""
        try:
            async for _ in watch.changes():
                if (lacking := tun.lacks(self._link.device, self._addressing(welcome))) is not None:
                    tun.configure(self._link.device, self._addressing(welcome))
                    self._repaired[f"repaired_{lacking}"] += 1
                    log.warning("link %s: repaired the %s of %s", self._link.name, lacking, self._link.device)
        except tun.DeviceRefused as error:
            return self._refused(error)
        except OSError as error:
            return LinkDown("device", f"the kernel tells no changes of {self._link.device}: {error.strerror}")
        return LinkDown("device", "the kernel tells no changes any more")  # never: they do not end

    async def _data_over(self, session: keys.Session, control: asyncio.StreamWriter) -> LinkDown | WorkerDied:
        """Open the other data connections, and a new one for each that ends; return why the session ended."""
        try:
            for number in range(1, self._link.connections):
                self._plane.connect(number, await _open_data(control, session, number))
            while True:
                match await self._plane.report(session.session_id):
                    case Over(_, why):
                        return LinkDown("gone", why)
                    case Lost(_, number):
                        number += self._link.connections
                        async with asyncio.timeout(PATIENCE):
                            self._plane.connect(number, await _open_data(control, session, number))
        except WorkerDied as error:
            return error
        except OSError as error:
            return LinkDown("gone", f"a data connection cannot be opened: {error.strerror or error}")

    async def _alive(self, session: keys.Session) -> None:
        match await self._plane.report(session.session_id):
            case Over(_, why):
                raise LinkDown("gone", why)


async def _next_event(conversation: Conversation, reader: asyncio.StreamReader) -> Event:
    while True:
        data = await reader.read(_READ)
        if not data:
            raise LinkDown("gone", "the server closed the control connection")
        for event in conversation.receive(data):
            return event


async def _control_over(conversation: Conversation, reader: asyncio.StreamReader) -> LinkDown | WorkerDied:
    """Return why the session ended, as the control channel tells it."""
    try:
        match await _next_event(conversation, reader):
            case Goodbye(code, reason):
                return LinkDown(code, f"the server ended the session: {reason}")
            case other:
                return LinkDown("protocol", f"the server sent {type(other).__name__} in an open session")
    except LinkDown as end:
        return end
    except (frame.RemoteProtocolError, OSError) as error:
        return LinkDown("gone", f"the control connection broke: {error}")


async def _open_data(control: asyncio.StreamWriter, session: keys.Session, number: int) -> socket.socket:
    """Connect once more to where the control channel ended up, and show that it is us."""
    peer = control.get_extra_info("peername")
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


def _open_datagram(control: asyncio.StreamWriter) -> socket.socket:
    """Return a UDP socket connected to where the control channel ended up."""
    peer = control.get_extra_info("peername")
    sock = socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(peer)
    return sock


async def _serve(link: Gtun | Client, control: Path | None) -> None:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await link.run(control)
    finally:
        notify("STOPPING=1")


def main() -> None:
    """Run ``gtun --config FILE`` or ``gtun --legacy FILE``."""
    parser = argparse.ArgumentParser(prog="gtun", description="Keep one link to a gtund.")
    file = parser.add_mutually_exclusive_group(required=True)
    file.add_argument("--config", type=Path, help="the link's TOML file")
    file.add_argument("--legacy", type=Path, help="a TOML file of gtun 2.0.2: speak its protocol, NOT ENCRYPTED")
    parser.add_argument("--control", type=Path, help="Unix socket that tells the link's state")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, format="%(name)s: %(message)s")
    try:
        link = Gtun(config.read_link(options.config)) if options.config else Client(read_client(options.legacy))
    except config.ConfigError as error:
        parser.exit(2, f"gtun: {error}\n")
    try:
        asyncio.run(_serve(link, options.control))
    except (WorkerDied, tun.DeviceRefused) as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
