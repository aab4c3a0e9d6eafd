"""The legacy server: lets clients of gtun 2.0.2 in, and forwards for them to what is served. NOT ENCRYPTED.

One TUN for all of them, as the original has it, and an exact look-up of the destination among the clients' addresses.
That is the simplest thing that is right: a client is one address that lives as long as its connection, so a device each
would come and go with every reconnect, and a device costs calls of `ip` during which nobody else's packets move. One
TUN is set up once; all that a client costs is an entry in a table. It also means one process on one core for all.

Unlike the original: the source of each packet is held against its client's address; what is neither served nor a client
is not reached; a stranger has little time and room; a slow client loses packets of its own and delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from appliance.tunnel import nat, report, stranger, tun
from appliance.tunnel.config import ConfigError
from appliance.tunnel.frame import RemoteProtocolError
from appliance.tunnel.gate import PATIENCE, Gate, Place

from . import WARNING
from .config import ServerConfig
from .device import Device
from .line import Closed, Line
from .message import HEARTBEAT_ANSWER, MTU, NO_ADDRESS, SUCCESS, WRONG_KEY, Answer, Command, read_authorize
from .pool import Pool, PoolEmpty

log = logging.getLogger("gtund")

DEVICE: Final = "gtund-legacy"
TABLE: Final = "inet nexthop_gtund_legacy"
METRIC: Final = 4001
"""Of the unreachable route for the pool: one above gtund's own, to be told from it."""

SILENCE: Final = 10.0
"""Seconds without a message after which a client is gone; the original waits as long for each."""

_WRITE_PATIENCE: Final = 30.0
_LOOK_EVERY: Final = 1.0
_BACKLOG: Final = 256
_PAUSE: Final = 0.1


@dataclass(slots=True, eq=False)
class Guest:
    """One client that was let in."""

    address: IPv4Address
    source: str
    line: Line
    counters: Counter[str]
    since: float = field(default_factory=time.time)


class Server:
    """All clients of this server."""

    def __init__(self, settings: ServerConfig, device: Device, pool: Pool) -> None:
        self._settings, self._device, self._pool = settings, device, pool
        self._key = _digest(settings.key)
        self._gate = Gate()
        self._guests: dict[bytes, Guest] = {}
        self._counters: Counter[str] = Counter()

    async def run(self, listener: socket.socket) -> None:
        """Accept until cancelled; `listener` is bound, listening and non-blocking. Raise `tun.DeviceRefused`."""
        self._device.listen(self._from_device)
        self._device.carry(up=True)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                accept = group.create_task(self._accept(listener, group))
                why = await self._device.gone()
                watch.cancel()
                accept.cancel()
                for guest in self._guests.values():
                    guest.line.end(why)
        finally:
            self._device.ignore()
        raise tun.DeviceRefused(why)

    def report(self) -> report.Report:
        """Return who is connected, for the control socket."""
        return {
            "encrypted": False,
            "warning": WARNING,
            "pid": os.getpid(),
            "device": self._device.name,
            "turned_away": self._gate.turned_away,
            "free_addresses": len(self._pool),
            "counters": self._counters + self._device.counters,
            "clients": {
                str(guest.address): {"source": guest.source, "since": guest.since, "counters": guest.counters}
                for guest in self._guests.values()
            },
        }

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, say: the clients that are in go on
                log.error("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(_PAUSE)
                continue
            source = peer[0].removeprefix("::ffff:")
            if (place := self._gate.enter(source)) is None:
                sock.close()
            else:
                stranger.receive(group, self._gate, place, sock, self._receive(sock, source, place))

    async def _watch(self) -> None:
        """End the connections of clients that have fallen silent."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            self.end_silent(time.monotonic())

    def end_silent(self, now: float) -> None:
        """End every connection without a message in the last `SILENCE` seconds before `now` (monotonic)."""
        for guest in self._guests.values():
            if now - guest.line.heard >= SILENCE:
                guest.line.end(f"it said nothing for {SILENCE:.0f} seconds")

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _receive(self, sock: socket.socket, source: str, place: Place) -> None:
        """See one connection through; whatever it does, only itself ends."""
        counters: Counter[str] = Counter()
        try:
            with contextlib.closing(Line(sock, counters, _WRITE_PATIENCE)) as line:
                async with asyncio.timeout(PATIENCE):
                    address = await self._admit(line, source)
                if address is not None:
                    self._gate.leave(place)  # it is no stranger any more
                    await self._serve(Guest(address, source, line, counters))
        except (OSError, Closed, RemoteProtocolError) as error:  # TimeoutError is an OSError
            log.debug("a connection from %s ended: %s", source, error)
        except Exception:
            log.exception("a connection from %s met a mistake of ours", source)

    async def _admit(self, line: Line, source: str) -> IPv4Address | None:
        """Hear a stranger out. Return the address that is now its own, or None when it was told why not."""
        asked = read_authorize(*await line.message())
        if not hmac.compare_digest(self._key, _digest(asked.key)):
            log.warning("refused a legacy client from %s: another key", source)
            self._counters["refused_key"] += 1
            await _refuse(line, WRONG_KEY)
            return None
        try:
            address = self._pool.take(source)
        except PoolEmpty:
            log.warning("refused a legacy client from %s: no address of %s is free", source, self._settings.cidr)
            self._counters["refused_address"] += 1
            await _refuse(line, NO_ADDRESS)
            return None
        settings = self._settings
        answer = Answer(SUCCESS, address, settings.gateway, settings.nameservers, settings.route_url)
        try:
            await line.tell(answer.encode())
        except BaseException:
            self._pool.give(address)
            raise
        return address

    async def _serve(self, guest: Guest) -> None:
        log.warning("legacy client %s came in from %s, not encrypted", guest.address, guest.source)
        self._guests[guest.address.packed] = guest
        try:
            self._start(guest)
            why = await guest.line.over()
            log.info("legacy client %s is gone: %s", guest.address, why)
        finally:
            del self._guests[guest.address.packed]
            self._pool.give(guest.address)
            self._counters += guest.counters

    # --- packets -----------------------------------------------------------------------------------------------------

    def _start(self, guest: Guest) -> None:
        device, line, counters, source = self._device, guest.line, guest.counters, guest.address.packed

        def take(command: int, payload: memoryview) -> None:
            if command == Command.DATA:
                device.deliver(payload, counters, source)
            elif command == Command.HEARTBEAT:
                line.say(HEARTBEAT_ANSWER)
            else:
                counters["skipped_commands"] += 1

        line.start(take)

    def _from_device(self) -> None:
        now, touched = time.monotonic(), set()
        for packet in self._device.packets():
            guest = self._guests.get(packet[16:20])
            if guest is None:
                self._counters["drop_no_client"] += 1
            else:
                guest.line.forward(packet, now)
                touched.add(guest.line)
        for line in touched:
            line.flush()


async def serve(settings: ServerConfig, served: tuple[IPv4Network, ...], *, snat: bool, run: Path) -> None:
    """Serve until SIGTERM or SIGINT; `run` is the directory of the control socket, ``legacy.sock``.

    Raise `ConfigError`, `tun.DeviceRefused` or `nat.FirewallRefused`.
    """
    log.warning("%s", WARNING)
    pool, gateway = settings.cidr.network, settings.gateway
    if used := tun.occupied(pool, DEVICE, METRIC):
        raise ConfigError(f"[dhcp] cidr = {pool} is in use here, {used}: give it to one of the two only")
    listener = listen(settings.host, settings.port)
    device = await Device.open(DEVICE)
    with contextlib.closing(device), contextlib.closing(listener):
        interface = IPv4Interface(f"{gateway}/{pool.prefixlen}")
        device.configure(tun.Addressing(interface, None, MTU, "gtund legacy clients"))
        tun.forbid(pool, METRIC)
        nat.apply(nat.render(nat.Zone(str(gateway), served, snat=snat, table=TABLE, devices=DEVICE)))
        nat.forward_packets()
        server = Server(settings, device, Pool(settings.cidr, gateway))
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
        async with report.serve(run / "legacy.sock", server.report):
            log.info("legacy clients may come to port %d, for %s", settings.port, ", ".join(map(str, served)))
            with contextlib.suppress(asyncio.CancelledError):
                await server.run(listener)


def purge(settings: ServerConfig) -> None:
    """Remove our rules, device and route from this machine's kernel."""
    nat.remove(TABLE)
    tun.destroy(DEVICE)
    tun.permit(settings.cidr.network, METRIC)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket, for IPv4 and IPv6 when `host` is empty; raise `ConfigError`."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"[server] listen: cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return listener


async def _refuse(line: Line, status: str) -> None:
    await line.tell(Answer(status).encode())
    await line.farewell()


def _digest(key: str) -> bytes:
    """Return what stands for a key in comparisons; JSON can hold half a character, which UTF-8 cannot."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
