"""The legacy client: keeps one link to a server of gtun 2.0.2, or to ours that speaks like one. NOT ENCRYPTED.

As its original it authorizes, puts the address it is given, /24, on its TUN, and sends a heartbeat every 3 s. Unlike
it: the TUN and every route over it stay where they are between connections, and a new address comes before the old one
goes; any status but success is an error that is shown; nothing waits for a full queue; one reader reads the TUN, and
only while there is a connection. The link is up when the first heartbeat was answered, and dead when three were not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final, NoReturn

from appliance.tunnel import report, tun
from appliance.tunnel.backoff import Backoff
from appliance.tunnel.config import host_and_port
from appliance.tunnel.frame import RemoteProtocolError
from appliance.tunnel.race import first
from appliance.tunnel.standing import LinkDown, Standing, State

from . import WARNING
from .config import ClientConfig
from .device import Device
from .heartbeat import EVERY, MISSED, Heartbeat
from .line import Closed, Line, dial
from .message import HEARTBEAT, MTU, NO_ADDRESS, SUCCESS, WRONG_KEY, Answer, Authorize, Command, read_answer

log = logging.getLogger("gtun")

PATIENCE: Final = 10.0
"""Seconds for a server to answer, from the first SYN to the first heartbeat; what the original has for connecting."""

PREFIX: Final = 24
_SHOWN: Final = 80


class Client:
    """One link, from its file."""

    def __init__(self, link: ClientConfig, open_device: Callable[[str], Awaitable[Device]] = Device.open) -> None:
        self._link = link
        self._open_device = open_device
        self._counters: Counter[str] = Counter()
        self._standing = Standing(State.CONNECTING, time.time())
        self._backoff = Backoff(random.random)
        self._heartbeat: Heartbeat | None = None

    async def run(self, control: Path | None) -> NoReturn:
        """Keep the link up until cancelled; raise `tun.DeviceRefused` when there is no device to keep it with."""
        log.warning("link %s to %s: %s", self._link.name, self._link.server, WARNING)
        async with contextlib.AsyncExitStack() as stack:
            if control is not None:
                await stack.enter_async_context(report.serve(control, self.report))
            device = await self._open_device(self._link.device)
            stack.callback(device.close)
            while True:
                await self._attempt(device)

    def report(self) -> report.Report:
        """Return the link's state for the control socket: a sealed link's, and the warning, also as reason while up."""
        standing, heartbeat = self._standing, self._heartbeat
        up = standing.state is State.UP
        rtt = heartbeat.rtt if up and heartbeat else None
        return {
            "name": self._link.name,
            "device": self._link.device,
            "pid": os.getpid(),
            "state": standing.state.value,
            "code": standing.code,
            "reason": WARNING if up else standing.reason,
            "server": self._link.server,
            "address": standing.address,
            "peer": standing.peer,
            "since": standing.since,
            "retry_at": standing.retry_at,
            "rtt_ms": round(rtt * 1000, 3) if rtt is not None else None,
            "counters": self._counters,
            "encrypted": False,
            "warning": WARNING,
        }

    async def _attempt(self, device: Device) -> None:
        server = self._link.server
        try:
            await self._session(device)
        except LinkDown as end:
            failure = end
        except TimeoutError:
            failure = LinkDown("timeout", f"{server} does not answer within {PATIENCE:.0f} seconds")
        except RemoteProtocolError as error:
            failure = LinkDown("protocol", f"{server} does not speak gtun 2.0.2's protocol: {error}")
        except Closed as error:
            failure = LinkDown("gone", f"{server}: {error}")
        except OSError as error:
            failure = LinkDown("unreachable", f"{server} cannot be reached: {error.strerror or error}")
        delay = self._backoff.failed()
        log.warning("link %s is down: %s (%s); next try in %.1f s", self._link.name, failure, failure.code, delay)
        self._standing.become(State.DOWN, code=failure.code, reason=str(failure), retry_at=time.time() + delay)
        await asyncio.sleep(delay)

    async def _session(self, device: Device) -> NoReturn:
        host, port = host_and_port(self._link.server, "server")
        async with asyncio.timeout(PATIENCE) as patience:
            line = Line(await dial(host, port, PATIENCE), self._counters, PATIENCE)
            try:
                await line.tell(Authorize(self._link.auth).encode())
                self._take_address(device, self._accepted(read_answer(*await line.message())))

                def up() -> None:
                    patience.reschedule(None)
                    device.carry(up=True)
                    log.info("link %s is up: %s via %s", self._link.name, self._standing.address, self._link.server)
                    self._backoff.succeeded()
                    self._standing.become(State.UP)

                session = _Session(device, line, self._counters, up)
                self._heartbeat = session.heartbeat
                session.start()
                raise LinkDown("gone", await first(line.over(), device.gone(), session.beat()))
            finally:
                line.close()
                device.ignore()
                device.carry(up=False)

    def _accepted(self, answer: Answer) -> Answer:
        """Return an answer that lets us in; raise `LinkDown` with what to do about any other."""
        server = self._link.server
        match answer.status:
            case status if status == SUCCESS:
                return answer
            case status if status == WRONG_KEY:
                raise LinkDown("denied", f"{server} refuses the key: [client] auth here is not [server] auth_key there")
            case status if status == NO_ADDRESS:
                raise LinkDown("no-address", f"{server} has no free address: give it a larger [dhcp] cidr")
            case status:
                raise LinkDown("denied", f"{server} refuses us: {status[:_SHOWN]!r}")

    def _take_address(self, device: Device, answer: Answer) -> None:
        """Set up the device; an address out of a network of this machine's own would take that network away."""
        address = IPv4Interface(f"{answer.address}/{PREFIX}")
        if used := device.occupied(address.network, tun.LINKS):
            raise LinkDown("address", f"{self._link.server} gives us {address}, but this machine has {used}")
        device.configure(tun.Addressing(address, None, MTU, f"nexthop link {self._link.name}"))
        self._standing.address = str(address)
        self._standing.peer = str(answer.gateway) if answer.gateway else None


class _Session:
    """What happens on an authorized connection. `up` is called once, at the first answered heartbeat."""

    def __init__(self, device: Device, line: Line, counters: Counter[str], up: Callable[[], None]) -> None:
        self.heartbeat = Heartbeat(time.monotonic())
        self._device, self._line, self._counters = device, line, counters
        self._up: Callable[[], None] | None = up

    def start(self) -> None:
        """Begin to carry packets, both ways."""
        self._line.start(self._take)
        self._device.listen(self._from_device)

    async def beat(self) -> str:
        """Send heartbeats until too many were missed, and say so."""
        while True:
            now = time.monotonic()
            if self.heartbeat.dead(now):
                return f"nothing came back for {MISSED} heartbeats, {MISSED * EVERY:.0f} seconds"
            if self.heartbeat.due(now):
                self._line.say(HEARTBEAT)
            await asyncio.sleep(max(0.0, self.heartbeat.next_deadline() - time.monotonic()))

    def _take(self, command: int, payload: memoryview) -> None:
        self.heartbeat.heard()
        if command == Command.DATA:
            self._device.deliver(payload, self._counters)
        elif command == Command.HEARTBEAT_ANSWER:
            self.heartbeat.answered(time.monotonic())
            if self._up is not None:
                up, self._up = self._up, None
                up()
        else:
            self._counters["skipped_commands"] += 1

    def _from_device(self) -> None:
        now = time.monotonic()
        for packet in self._device.packets():
            self._line.forward(packet, now)
        self._line.flush()
