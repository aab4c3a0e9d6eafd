"""The data plane: one process per link, one thread, one epoll loop. It knows sockets, keys and the TUN, no more.

Its parent (gtun or gtund) does TLS, names, leases and addresses, and hands down through a socket pair what is needed to
move packets: the TUN's descriptor, a session's secret, connected sockets. The same program serves both ends.

    parent -> worker   device (with the TUN)   session   connection (with a socket)   end
    worker -> parent   alive   lost (a connection)   over (why)   counters (each second)

`outbound` and `inbound` are the packet's two ways through here; this file is the loop around them.

It ends with its parent, by PR_SET_PDEATHSIG and by the end of the socket pair: a TUN that an orphan holds is busy.
"""

from __future__ import annotations

import base64
import ctypes
import ipaddress
import json
import os
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from . import buffers, frame, keys, tun
from .allow import Sources
from .inbound import Inbound
from .liveness import DEAD_AFTER, Liveness
from .outbound import DeviceBroke, Outbound
from .stream import Closed, Stream

_PR_SET_PDEATHSIG: Final = 1
_MESSAGE: Final = 16 << 10
_REPORT_EVERY: Final = 1.0
_TURN: Final = 8
"""Times that one descriptor is read before the others have their turn."""


class Worker:
    """The loop and what hangs in it."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._watch(parent.fileno(), select.EPOLLIN, self._obey)
        self._pool = buffers.Pool(keep=64)
        self._device = -1
        self._counters: Counter[str] = Counter()
        self._session: _Session | None = None
        self._report_at = 0.0
        self._orders: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
            "device": self._take_device,
            "session": self._begin,
            "connection": self._connect,
            "end": lambda _message, _fds: self._end(),
        }

    def run(self) -> None:
        """Serve until the parent is gone."""
        while True:
            now = time.monotonic()
            for fd, events in self._epoll.poll(max(0.0, self._next_deadline() - now)):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            self._keep_time(time.monotonic())

    # --- the parent's orders ---------------------------------------------------------------------------------------

    def _obey(self, _events: int) -> None:
        data, fds, _, _ = socket.recv_fds(self._parent, _MESSAGE, 1)
        if not data:
            raise SystemExit(0)
        message = json.loads(data)
        self._orders[message["do"]](message, fds)

    def _tell(self, what: str, **message: object) -> None:
        if self._session is not None:
            message["session"] = self._session.keys.session_id.hex()
        try:
            self._parent.send(json.dumps({"is": what, **message}).encode())
        except BlockingIOError:  # a parent that does not listen loses reports, not packets
            self._counters["lost_reports"] += 1
        except OSError:
            raise SystemExit(0) from None

    def _take_device(self, _message: dict[str, Any], fds: list[int]) -> None:
        self._device = fds[0]
        self._outbound = Outbound(self._device, self._pool, self._counters)
        self._inbound = Inbound(self._device, self._counters)

    def _begin(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Start a session. The old one, if there is one, ends without the device's carrier falling in between."""
        self._close_streams()
        self._session = _Session(message, time.monotonic())

    def _connect(self, message: dict[str, Any], fds: list[int]) -> None:
        sock, session, number = socket.socket(fileno=fds[0]), self._session, message["connection"]
        if session is None:
            sock.close()
            return
        sealer = keys.Sealer(session.keys, session.direction, number)
        opener = keys.Opener(session.keys, session.direction.opposite, number)
        stream = Stream(sock, sealer, opener, self._pool, Liveness(time.monotonic()))
        if (old := session.put(number, stream)) is not None:
            self._close(old)
        self._watch(stream.fd, select.EPOLLIN, lambda events: self._from_stream(stream, events))
        self._watch(self._device, select.EPOLLIN, self._from_device)

    def _end(self) -> None:
        self._close_streams()
        self._session = None
        if self._device >= 0:
            tun.set_carrier(self._device, up=False)

    def _over(self, why: str) -> None:
        if self._session is not None:
            self._tell("over", why=why)
            self._end()

    # --- time ------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        session = self._session
        return min(self._report_at, session.next_deadline()) if session else self._report_at

    def _keep_time(self, now: float) -> None:
        if now >= self._report_at:
            self._report_at = now + _REPORT_EVERY
            self._tell("counters", rtt=self._session.rtt if self._session else None, counters=self._counters)
        if (session := self._session) is None:
            return
        for stream in session.streams():
            if stream.liveness.dead(now):
                self._lose(session, stream, "nothing came back through the tunnel for 3 seconds")
            elif (probe := stream.liveness.due(now)) is not None:
                stream.say(frame.Kind.PROBE, probe)
                self._flush(session, stream)
        if session.missed(now):
            self._over("no data connection was made in 3 seconds")

    # --- packets ---------------------------------------------------------------------------------------------------

    def _from_device(self, _events: int) -> None:
        now = time.monotonic()
        for _ in range(_TURN):
            if (session := self._session) is None:
                return
            try:
                more = self._outbound.fill(session.choose, now)
            except DeviceBroke as error:
                self._over(str(error))
                return
            for stream in session.streams():
                if len(stream.queue):
                    self._flush(session, stream)
            if not more:
                return

    def _flush(self, session: _Session, stream: Stream) -> None:
        try:
            stream.watch_writable(self._epoll, wanted=not stream.flush())
        except Closed as error:
            self._lose(session, stream, str(error))

    def _from_stream(self, stream: Stream, events: int) -> None:
        if (session := self._session) is None:
            return
        try:
            if events & ~select.EPOLLOUT:
                for kind, plain in stream.receive():
                    if kind is frame.Kind.DATA:
                        self._inbound.deliver(plain, session.sources)
                    elif kind is frame.Kind.PROBE:
                        stream.say(frame.Kind.ECHO, bytes(plain))
                    else:
                        self._echoed(session, stream, bytes(plain))
        except (Closed, frame.RemoteProtocolError) as error:
            self._lose(session, stream, str(error))
            return
        self._flush(session, stream)

    def _echoed(self, session: _Session, stream: Stream, payload: bytes) -> None:
        stream.liveness.echoed(payload, time.monotonic())
        if not session.alive:
            session.alive = True
            tun.set_carrier(self._device, up=True)
            self._tell("alive")

    # --- the loop's book-keeping -----------------------------------------------------------------------------------

    def _watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _close(self, stream: Stream) -> None:
        self._unwatch(stream.fd)
        stream.close()

    def _lose(self, session: _Session, stream: Stream, why: str) -> None:
        """One connection is over; with the last one, so is the session."""
        number = session.remove(stream)
        if number is None:
            return
        self._close(stream)
        if session.streams():
            self._counters["lost_connections"] += 1
            self._tell("lost", connection=number)
        else:
            self._over(why)

    def _close_streams(self) -> None:
        for stream in self._session.streams() if self._session else ():
            self._close(stream)
        self._unwatch(self._device)


class _Session:
    """What the parent said of a session, and its channels. A flow stays in its slot; see `choose`."""

    def __init__(self, message: dict[str, Any], now: float) -> None:
        self.keys = keys.Session(bytes.fromhex(message["session"]), base64.b64decode(message["secret"]))
        self.direction = keys.Direction.TO_SERVER if message["role"] == "client" else keys.Direction.TO_CLIENT
        self.sources = Sources(ipaddress.ip_network(prefix) for prefix in message["sources"])
        self.alive = False
        self._slots: list[Stream | None] = [None] * message["connections"]
        self._numbers: dict[Stream, int] = {}
        self._connect_by = now + DEAD_AFTER

    def put(self, number: int, stream: Stream) -> Stream | None:
        """Take in a connection; return the one that it takes over from."""
        slot = number % len(self._slots)
        old, self._slots[slot] = self._slots[slot], stream
        if old is not None:
            del self._numbers[old]
        self._numbers[stream] = number
        return old

    def remove(self, stream: Stream) -> int | None:
        """Take out a connection; return its number, None if it is not in."""
        number = self._numbers.pop(stream, None)
        if number is not None:
            self._slots[number % len(self._slots)] = None
        return number

    def streams(self) -> tuple[Stream, ...]:
        """Return the connections that there are."""
        return tuple(self._numbers)

    def choose(self, flow: int, _tcp: bool) -> Stream | None:  # noqa: FBT001 - called for every packet
        """Return the flow's connection: always that of its slot, any other while that is missing."""
        slots = self._slots
        return slots[flow % len(slots)] or next(iter(self._numbers), None)

    @property
    def rtt(self) -> float | None:
        """Return the least smoothed round trip, in seconds."""
        return min((stream.liveness.rtt for stream in self._numbers if stream.liveness.rtt is not None), default=None)

    def next_deadline(self) -> float:
        """Return when there is something to do."""
        return min((stream.liveness.next_deadline() for stream in self._numbers), default=self._connect_by)

    def missed(self, now: float) -> bool:
        """Return whether no connection came in time."""
        return not self._numbers and now >= self._connect_by


def die_with(parent: int) -> None:
    """Have the kernel end this process when `parent`, a pid, is gone; prctl(2), PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)


def main() -> None:
    """Run as ``python -m appliance.tunnel.worker FD PARENT_PID``, started by `DataPlane` only."""
    die_with(int(sys.argv[2]))
    # The parent decides when we end; Ctrl-C in its terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
