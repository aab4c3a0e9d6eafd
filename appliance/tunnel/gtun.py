"""gtun: the client's end of one link. It keeps one session with a gtund, for ever.

Each attempt: connect, TLS, check the pin before a word is said, say hello, take the lease, hand keys and a data
connection to the data plane, and stay until something ends. Then again, at once first, later ever more slowly. The TUN,
its address and every route over it stay where they are meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import NoReturn

from appliance.notify import Watchdog, notify

from . import config, keys, lease, report, tun, watch
from .backoff import Backoff
from .dataplane import DataPlane, Over, Traffic, WorkerDied
from .frame import RemoteProtocolError
from .handshake import FAILURES, PATIENCE, connect, handshake, meaning
from .lease import Address, Network
from .legacy.client import Client
from .legacy.config import read_client
from .messages import Mode, Welcome
from .opened import Opened, open_data, open_datagram, said
from .race import first
from .rotation import CannotRotate, Rotation
from .session import Conversation, Role
from .standing import LinkDown, Standing, State

log = logging.getLogger("gtun")


class Gtun:
    """One link; `file` is the one that it was read from."""

    def __init__(self, link: config.LinkConfig, file: Path) -> None:
        self._link = link
        self._file = file
        self._begin_anew = asyncio.Event()
        self._watchdog = Watchdog()
        self._plane = self._new_plane()
        self._standing = Standing(State.CONNECTING, time.time())
        self._backoff = Backoff(random.random)
        self._repaired: Counter[str] = Counter()
        self._rotation: Rotation | None = None

    async def run(self, control: Path | None) -> NoReturn:
        """Keep the link up until cancelled; raise what `tun` raises when there is nothing to keep."""
        async with contextlib.AsyncExitStack() as stack:
            if control is not None:
                commands = {"rekey": self.rekey, "reload": self.reload}
                await stack.enter_async_context(report.serve(control, self.report, commands))
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
        return DataPlane(self._link.device, self._watchdog.progressed, gso=self._link.gso)

    async def _close_plane(self) -> None:
        await self._plane.close()

    def report(self) -> report.Report:
        """Return the link's state for the control socket."""
        standing, traffic = self._standing, self._plane.traffic
        now = traffic if standing.state is State.UP else Traffic(counters=traffic.counters)
        return {
            **now.report(),
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
            "counters": {**traffic.counters, **self._repaired},
            "tasks": len(asyncio.all_tasks()),
        }

    async def rekey(self, _: bytes = b"") -> dict[str, object]:
        """Make the session's keys anew, for the control socket."""
        if self._rotation is None:
            return {"error": "there is no session whose keys could be made anew"}
        try:
            return {"epoch": await self._rotation.now()}
        except CannotRotate as error:
            return {"error": str(error)}

    async def reload(self, text: bytes = b"") -> dict[str, object]:
        """Begin a new session by what the link's file says now, for the control socket. Flows live on.

        `text` is what the file says. Without it the file is read again, which is not enough where a service manager
        handed us a copy of it (systemd.exec(5), LoadCredential): that stays as it was when we began.
        """
        try:
            link = config.link_from(text.decode(), self._file) if text else config.read_link(self._file)
        except (config.ConfigError, UnicodeDecodeError) as error:
            return {"error": str(error)}
        if (link.name, link.device) != (self._link.name, self._link.device):
            return {"error": "the link's name or device is another one: restart gtun for that"}
        if _credentials(link) != _credentials(self._link) and (refusal := await _try(link)) is not None:
            return {"error": str(refusal), "code": refusal.code}
        self._link = link
        self._begin_anew.set()
        return {"reloaded": link.name}

    async def _asked_to_begin_anew(self) -> LinkDown | WorkerDied:
        await self._begin_anew.wait()
        return LinkDown("reload", "the link's file is read again")

    async def _open_device(self) -> None:
        try:
            await self._plane.start()
        except tun.DeviceBusy:
            text = f"{self._link.device} stays busy: is another gtun running for this link?"
            raise tun.DeviceRefused(text) from None

    async def _attempt(self) -> None:
        try:
            await self._session()
        except FAILURES as error:
            failure = meaning(self._link, error)
        self._plane.end()
        if not tun.exists(self._link.device):  # whatever ended first: without a device no session comes about
            raise WorkerDied(f"somebody deleted {self._link.device}")
        # What a session leaves refers to itself (tasks, errors with their frames): it would lie there until the
        # collector looks at everything, and memory would look as if it grew.
        gc.collect()
        delay = self._backoff.failed()
        log.warning("link %s is down: %s (%s); next try in %.1f s", self._link.name, failure, failure.code, delay)
        self._standing.become(State.DOWN, code=failure.code, reason=str(failure), retry_at=time.time() + delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._begin_anew.wait()

    async def _session(self) -> NoReturn:
        self._begin_anew.clear()
        async with asyncio.timeout(PATIENCE) as patience:
            line = await connect(self._link)
            try:
                conversation = Conversation(Role.CLIENT)
                events = said(conversation, line)
                welcome, session = await handshake(self._link, conversation, events, line)
                self._take_lease(welcome, ip_address(line.peer[0].removeprefix("::ffff:")))
                await self._plane.awake()
                self._plane.begin(session, "client", [], self._link.connections, self._link.channel.value)
                if self._link.channel is not Mode.STREAM:
                    self._plane.connect_datagram(open_datagram(line))
                self._plane.connect(0, await open_data(line, session, 0))
                await self._alive(session)
                patience.reschedule(None)
                log.info("link %s is up: %s via %s", self._link.name, welcome.address, self._link.server)
                self._backoff.succeeded()
                self._standing.become(State.UP)
                opened = Opened(self._link, self._plane, conversation, events, line, session)
                self._rotation = opened.rotation
                raise await first(opened.over(), self._device_lost(welcome), self._asked_to_begin_anew())
            finally:
                self._rotation = None
                line.hang_up()

    def _take_lease(self, welcome: Welcome, server: Address) -> None:
        for given, gateway in ((welcome.address, welcome.gateway), (welcome.address6, None)):
            if given is not None and (why := _objection(given.network, server, gateway)) is not None:
                raise LinkDown("address", f"{self._link.server} gives us {given}: {why}")
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

    async def _alive(self, session: keys.Session) -> None:
        match await self._plane.report(session.session_id):
            case Over(_, why):
                raise LinkDown("gone", why)


def _objection(subnet: Network, server: Address, gateway: IPv4Address | None) -> str | None:
    if (why := lease.objection(subnet, server, gateway)) is not None:
        return why
    used = tun.occupied(subnet, tun.LINKS)
    return f"this machine has {used}" if used else None


def _credentials(link: config.LinkConfig) -> tuple[str, ...]:
    return link.server, link.pin, link.client, link.key, link.join


async def _try(link: config.LinkConfig) -> LinkDown | None:
    """Return why the server does not let us in so: what we have is given up only where nothing speaks for it.

    From our hello on the server may have enrolled the new key, and then the old one is dead. Where its answer is lost
    the new key is the one to go on with: either it is enrolled, or the join secret beside it still is good.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            line = await connect(link)
    except FAILURES as error:
        return meaning(link, error)
    try:
        async with asyncio.timeout(PATIENCE):
            conversation = Conversation(Role.CLIENT)
            await handshake(link, conversation, said(conversation, line), line)
    except (LinkDown, RemoteProtocolError) as error:
        refusal = meaning(link, error)
        return None if refusal.code == "gone" else refusal
    except (OSError, TimeoutError):
        return None
    finally:
        line.hang_up()
    return None


async def _serve(link: Gtun | Client, control: Path | None) -> None:
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await link.run(control)
    finally:
        notify("STOPPING=1")


def _link(file: Path) -> Gtun:
    return Gtun(config.read_link(file), file)


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
        link = _link(options.config) if options.config else Client(read_client(options.legacy))
    except config.ConfigError as error:
        parser.exit(2, f"gtun: {error}\n")
    gc.freeze()  # what is there by now stays
    try:
        asyncio.run(_serve(link, options.control))
    except (WorkerDied, tun.DeviceRefused) as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
