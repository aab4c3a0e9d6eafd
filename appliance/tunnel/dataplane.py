"""A data plane as its parent sees it: a child process that takes orders and reports. Used by gtun and gtund alike."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from . import keys, orphan, tun

log = logging.getLogger(__name__)

_MESSAGE = 64 << 10
_MOMENT = 0.02
_TRIES = 20


@dataclass(slots=True)
class Traffic:
    """What the data plane last reported. `rtt` is in seconds, smoothed; the counters only grow."""

    rtt: float | None = None
    counters: dict[str, int] = field(default_factory=dict)
    channels: dict[str, Any] = field(default_factory=dict)

    def report(self, kernel: Mapping[str, int] = MappingProxyType({})) -> dict[str, object]:
        """Return what a control socket tells of it; `kernel`: what the kernel has counted for the same device.

        `channel`: what is in use, which is not what was asked for where UDP does not pass; `loss`: the share of our
        datagrams' units that was lost over the last seconds; `unit_bytes`: how much of such a unit is sealed at once.
        """
        datagram = self.channels.get("datagram") or {}
        return {
            "rtt_ms": round(self.rtt * 1000, 3) if self.rtt is not None else None,
            "channel": self.channels.get("in_use", ""),
            "loss": datagram.get("loss"),
            "unit_bytes": datagram.get("unit_bytes"),
            "channels": self.channels,
            "counters": {**self.counters, **kernel},
        }


@dataclass(frozen=True, slots=True)
class Alive:
    """The first echo of a session came back: it carries."""

    session_id: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """What is sealed in this epoch can be opened from now on."""

    session_id: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Lost:
    """One of a session's data connections ended; others carry on."""

    session_id: bytes
    connection: int


@dataclass(frozen=True, slots=True)
class Roamed:
    """An authentic datagram came from this address (as `socket` spells it): the peer is there now."""

    session_id: bytes
    address: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """A session ended in the data plane."""

    session_id: bytes
    why: str


Report = Alive | Ready | Lost | Roamed | Over


def give_way() -> None:
    """Have the scheduler never put this process in the place of one that runs, when it wakes (sched(7), SCHED_BATCH).

    It gets its share all the same, a moment later and more at a time; a data plane works best undisturbed.
    """
    with contextlib.suppress(OSError):  # a unit's filter may forbid it: then it disturbs
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _go_first(pid: int) -> None:
    """Have a child not inherit that."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


class WorkerDied(Exception):
    """The data plane's process is gone, and its TUN with it."""


class DataPlane:
    """One worker process with one TUN. Close it, or end this process, and the worker is gone too.

    A worker that lives reports each second, whether there is a session or not; `answered` is called then.
    `gso`: whether the kernel may cut large sends into datagrams.
    """

    def __init__(self, device: str, answered: Callable[[], None] = lambda: None, *, gso: bool = True) -> None:
        self.device = device
        self.traffic = Traffic()
        self.died = False
        self.answered_at = time.monotonic()
        self._answered, self._gso = answered, gso
        self._awake = asyncio.Event()
        self._inboxes: dict[bytes, asyncio.Queue[Report | None]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own signature

    async def start(self) -> None:
        """Open the TUN, start the worker and hand the TUN over; raise `tun.DeviceBusy` or `tun.DeviceRefused`."""
        device = await self._attach()
        try:
            fd = self._theirs.fileno()
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", orphan.WORKER, str(fd), str(os.getpid())), pass_fds=(fd,)
            )
            self._theirs.close()
            _go_first(self._process.pid)
            self._order({"do": "device"}, [device.fd])
        finally:
            # Only the worker may hold it: the carrier falls with the last descriptor.
            os.close(device.fd)
        asyncio.get_running_loop().add_reader(self._socket, self._listen)

    async def awake(self) -> None:
        """Return once the worker works, or is gone. It starts in 0.1 s, on a slow machine that just boots in several.

        A connection that it is handed before that answers no probe, and the other end would take it for dead.
        """
        await self._awake.wait()

    async def _attach(self) -> tun.Tun:
        """Open the TUN; a predecessor's data plane may need a moment to die, or some help."""
        for _ in range(_TRIES):
            try:
                return tun.attach(self.device)
            except tun.DeviceBusy:
                await asyncio.sleep(_MOMENT)
        if ended := orphan.end(self.device):
            log.warning("killed %s, an orphan that held %s", ended, self.device)
        for _ in range(_TRIES):
            with contextlib.suppress(tun.DeviceBusy):
                return tun.attach(self.device)
            await asyncio.sleep(_MOMENT)
        return tun.attach(self.device)

    def begin(self, session: keys.Session, role: str, sources: Sequence[str], connections: int, mode: str) -> None:
        """Start a session in which the peer may send from `sources` (CIDRs; none: anywhere). It ends the last."""
        for old in tuple(self._inboxes):
            self._deliver(Over(old, "a newer session began"))
        self._inboxes[session.session_id] = asyncio.Queue()
        secret = base64.b64encode(session.secret).decode()
        self._order(
            {
                "do": "session",
                "session": session.session_id.hex(),
                "secret": secret,
                "role": role,
                "sources": list(sources),
                "connections": connections,
                "mode": mode,
                "gso": self._gso,
            }
        )

    def connect(self, number: int, sock: socket.socket) -> None:
        """Hand over a connected socket as one of the session's data connections; ours is closed."""
        self._order({"do": "connection", "connection": number}, [sock.fileno()])
        sock.close()

    def connect_datagram(self, sock: socket.socket) -> None:
        """Hand over a connected UDP socket as the session's datagram channel; ours is closed."""
        self._order({"do": "datagram"}, [sock.fileno()])
        sock.close()

    def install(self, session: keys.Session, *, switch: bool) -> None:
        """Be ready for this epoch, which `Ready` will tell; with `switch` seal in it at once."""
        self._order(
            {
                "do": "epoch",
                "session": session.session_id.hex(),
                "epoch": session.epoch,
                "secret": base64.b64encode(session.secret).decode(),
                "switch": switch,
            }
        )

    def switch(self, session: keys.Session) -> None:
        """Seal in this epoch, which was installed last."""
        self._order({"do": "switch", "session": session.session_id.hex()})

    def stray(self, datagram: bytes, address: tuple[str | int, ...]) -> None:
        """Have a datagram looked at that came from an unknown address; `Roamed` is the answer if it is authentic."""
        self._order({"do": "stray", "datagram": base64.b64encode(datagram).decode(), "address": address})

    def end(self) -> None:
        """End the session: the device loses its carrier."""
        self._inboxes.clear()
        with contextlib.suppress(WorkerDied):
            self._order({"do": "end"})

    async def close(self) -> None:
        """End the worker and wait for it; the device stays."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if self._process is not None:
            await self._process.wait()

    def _order(self, message: dict[str, object], fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], list(fds))
        except OSError as error:
            raise WorkerDied(f"the data plane takes no orders: {error.strerror}") from None

    def _listen(self) -> None:
        try:
            data = self._socket.recv(_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            tun.settle(self.device.encode())
            self.died = True
            self._awake.set()
            for inbox in self._inboxes.values():
                inbox.put_nowait(None)
            return
        self._take(json.loads(data))

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"is": "counters", "rtt": rtt, "counters": counters, "channels": channels}:
                self.traffic = Traffic(rtt, counters, channels)
                self.answered_at = time.monotonic()
                self._awake.set()
                self._answered()
            case {"is": "alive", "session": session}:
                self._deliver(Alive(bytes.fromhex(session)))
            case {"is": "ready", "session": session, "epoch": epoch}:
                self._deliver(Ready(bytes.fromhex(session), epoch))
            case {"is": "lost", "session": session, "connection": number}:
                self._deliver(Lost(bytes.fromhex(session), number))
            case {"is": "roamed", "session": session, "address": address}:
                self._deliver(Roamed(bytes.fromhex(session), tuple(address)))
            case {"is": "over", "session": session, "why": why}:
                self._deliver(Over(bytes.fromhex(session), why))

    def _deliver(self, report: Report) -> None:
        if (inbox := self._inboxes.get(report.session_id)) is not None:
            inbox.put_nowait(report)

    async def report(self, session_id: bytes) -> Report:
        """Return the next report on a session that `begin` started; raise `WorkerDied` when there will be none."""
        report = await self._inboxes[session_id].get()
        if report is None:
            raise WorkerDied("the data plane's process ended")
        if isinstance(report, Over):
            del self._inboxes[session_id]
        return report
