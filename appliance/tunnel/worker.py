"""The data plane: one process per link, one thread, one epoll loop. It knows sockets, keys and the TUN, no more.

Its parent (gtun or gtund) does TLS, names, leases and addresses, and hands down through a socket pair what is needed to
move packets (`parent`): the TUN's descriptor, a session's secret, connected sockets. The same program serves both ends.

`outbound` and `inbound` are the packet's two ways through here; this file is the loop around them.

It ends with its parent, by the end of the socket pair: a TUN that an orphan holds is busy. A parent that was killed
leaves it just the time to take the carrier away, so that what comes from then on is answered and not swallowed.
"""

from __future__ import annotations

import base64
import contextlib
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from . import buffers, frame, keys, tun
from .channels import Channel, Session
from .datagram import Datagram
from .inbound import Inbound
from .liveness import Liveness
from .outbound import DeviceBroke, Outbound
from .parent import Parent, ParentGone
from .stream import Closed, Stream

_REPORT_EVERY: Final = 1.0
SILENCE: Final = "nothing came back through the tunnel for 3 seconds"

_DATA: Final = int(frame.Kind.DATA)
_EVENTS: Final = 16
"""Descriptors that one call tells of; more than a session has."""

_CALM: Final = 0.0001
"""Seconds of waiting after which what ends the wait is expected to be alone. Who never waits has more to do."""

_TURN: Final = 8
"""Times that one descriptor is read before the others have their turn."""


class Worker:
    """The loop and what hangs in it."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = Parent(parent)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._watch(self._parent.fd, select.EPOLLIN, self._obey)
        self._pool = buffers.Pool(keep=64)
        self._device = -1
        self._counters: Counter[str] = Counter()
        self._session: Session | None = None
        self._report_at = self._deadline = self._now = 0.0
        self._calm = False
        self._orders: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
            "device": self._take_device,
            "session": self._begin,
            "connection": self._connect,
            "datagram": self._connect_datagram,
            "stray": self._take_stray,
            "epoch": self._install,
            "switch": self._switch,
            "end": lambda _message, _fds: self._end(),
        }

    def run(self) -> None:
        """Serve until the parent is gone; the device's carrier goes with it."""
        try:
            while True:
                self._turn()
        except ParentGone:
            pass
        finally:  # whatever ends us: a mistake of ours must not leave a device that swallows packets
            self._end()

    def _turn(self) -> None:
        before = time.monotonic()
        ready = self._epoll.poll(max(0.0, self._deadline - before), _EVENTS)
        self._now = time.monotonic()
        self._calm = self._now - before > _CALM
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
        # Deadlines mostly move away as packets come: one that is kept too long wakes us early, and that is all.
        if (now := time.monotonic()) >= self._deadline:
            self._keep_time(now)
            self._deadline = self._next_deadline()

    # --- the parent's orders ---------------------------------------------------------------------------------------

    def _obey(self, _events: int) -> None:
        message, fds = self._parent.order()
        self._deadline = 0.0  # an order may bring one nearer
        self._orders[message["do"]](message, fds)

    def _tell(self, what: str, **message: object) -> None:
        if self._session is not None:
            message["session"] = self._session.keys.session_id.hex()
        if not self._parent.tell(what, message):
            self._counters["lost_reports"] += 1

    def _take_device(self, _message: dict[str, Any], fds: list[int]) -> None:
        self._device = fds[0]
        self._outbound: Outbound[Channel] = Outbound(self._device, self._pool, self._counters)
        self._inbound = Inbound(self._device, self._counters)

    def _begin(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Start a session. The old one, if there is one, ends without the device's carrier falling in between."""
        self._close_channels()
        self._inbound.begin()
        self._session = Session(message, self._pool, self._counters, time.monotonic())

    def _connect(self, message: dict[str, Any], fds: list[int]) -> None:
        sock, session, number = socket.socket(fileno=fds[0]), self._session, message["connection"]
        if session is None:
            sock.close()
            return
        stream = Stream(sock, *session.seals(number), self._pool, Liveness(time.monotonic()), self._counters)
        if (old := session.put(number, stream)) is not None:
            self._close(old)
        self._watch(stream.fd, select.EPOLLIN, partial(self._from_channel, stream))
        self._watch(self._device, select.EPOLLIN, self._from_device)

    def _connect_datagram(self, _message: dict[str, Any], fds: list[int]) -> None:
        """Use this UDP socket for the session's datagram channel, in place of the one before."""
        sock, session = socket.socket(fileno=fds[0]), self._session
        if session is None:
            sock.close()
            return
        self._use(session, sock)
        self._watch(self._device, select.EPOLLIN, self._from_device)
        self._flush(session, session.datagram)

    def _use(self, session: Session, sock: socket.socket) -> None:
        datagram = session.datagram
        self._unwatch(datagram.fd)
        datagram.attach(sock)
        self._watch(datagram.fd, select.EPOLLIN, partial(self._from_channel, datagram))

    def _take_stray(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Look at a datagram that came from an unknown address. If it is the peer's, that is where the peer is now."""
        if (session := self._session) is None:
            return
        try:
            for kind, plain in session.datagram.take(memoryview(base64.b64decode(message["datagram"]))):
                self._tell("roamed", address=message["address"])
                self._take(session, session.datagram, kind, plain)
        except frame.RemoteProtocolError as error:
            self._lose(session, session.datagram, str(error))

    def _install(self, message: dict[str, Any], fds: list[int]) -> None:
        """Be ready for a new epoch. The peer is told only when we have said so: nothing comes too early for us."""
        if (session := self._meant(message)) is not None:
            session.install(message["epoch"], base64.b64decode(message["secret"]))
            if message["switch"]:
                self._switch(message, fds)
            self._tell("ready", epoch=message["epoch"])

    def _switch(self, message: dict[str, Any], _fds: list[int]) -> None:
        if (session := self._meant(message)) is not None:
            session.switch(time.monotonic())
            self._counters["rekeys"] += 1

    def _meant(self, message: dict[str, Any]) -> Session | None:
        """Return the session if it is the one that the order is for: a newer one may have begun meanwhile."""
        session = self._session
        return session if session is not None and session.keys.session_id.hex() == message["session"] else None

    def _end(self) -> None:
        self._close_channels()
        self._session = None
        if self._device >= 0:
            with contextlib.suppress(OSError):  # a device that was deleted has no carrier to lose
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
            for stream in self._session.streams() if self._session else ():
                self._counters["retransmits"] += stream.retransmitted()
            self._tell("counters", **self._state(), counters=self._counters)
        if self._session is not None:
            self._look_after(self._session, now)

    def _look_after(self, session: Session, now: float) -> None:
        session.forget(now)
        for stream in session.streams():
            if stream.liveness.dead(now):
                self._lose(session, stream, SILENCE)
            else:
                self._probe(session, stream, now)
        if self._session is not session:  # the last stream was lost, and the session with it
            return
        if session.datagram.fd >= 0:
            if session.direction is keys.Direction.TO_SERVER and (sock := session.datagram.renewed(now)) is not None:
                self._use(session, sock)
            self._probe(session, session.datagram, now)
            if session.datagram.resume_at and now >= session.datagram.resume_at:
                self._flush(session, session.datagram)
        if session.dead(now):
            self._over(SILENCE)

    def _state(self) -> dict[str, object]:
        return self._session.state() if self._session else {"rtt": None, "channels": {}}

    def _probe(self, session: Session, channel: Channel, now: float) -> None:
        if (probe := channel.liveness.due(now)) is not None:
            channel.say(frame.Kind.PROBE, probe)
            self._flush(session, channel)

    # --- packets ---------------------------------------------------------------------------------------------------

    def _from_device(self, _events: int) -> None:
        now, calm, outbound = self._now, self._calm, self._outbound
        for _ in range(_TURN):
            if (session := self._session) is None:
                return
            try:
                more = outbound.fill(session, now, calm=calm)
            except DeviceBroke as error:
                self._over(str(error))
                return
            for channel in outbound.begun:
                self._flush(session, channel)
            outbound.begun.clear()
            if not more:
                return

    def _flush(self, session: Session, channel: Channel) -> None:
        try:
            if channel.flush() is channel.waiting:
                channel.watch_writable(self._epoll, wanted=not channel.waiting)
        except Closed as error:
            self._lose(session, channel, str(error))
            return
        if channel is session.datagram and session.datagram.resume_at:
            self._deadline = min(self._deadline, session.datagram.resume_at)

    def _from_channel(self, channel: Channel, events: int) -> None:
        if (session := self._session) is None:
            return
        try:
            if events & ~select.EPOLLOUT:
                for kind, plain in channel.receive(calm=self._calm):
                    self._take(session, channel, kind, plain)
        except (Closed, frame.RemoteProtocolError) as error:
            self._lose(session, channel, str(error))
            return
        if channel.urgent or events & select.EPOLLOUT:
            self._flush(session, channel)

    def _take(self, session: Session, channel: Channel, kind: int, plain: memoryview) -> None:
        if kind == _DATA:
            self._inbound.deliver(plain, session.sources, ordered=channel is not session.datagram)
        elif kind == frame.Kind.PROBE:
            channel.say(frame.Kind.ECHO, bytes(plain))
        elif kind == frame.Kind.ECHO:
            channel.echoed(bytes(plain), time.monotonic())
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

    def _lose(self, session: Session, channel: Channel, why: str) -> None:
        """Close a connection; with the last channel the session is over. Datagrams of nonsense cost only themselves."""
        if isinstance(channel, Datagram):
            self._counters["drop_nonsense"] += 1
            return
        number = session.remove(channel)
        if number is None:
            return
        self._close(channel)
        if session.lives(time.monotonic()):
            self._counters["lost_connections"] += 1
            self._tell("lost", connection=number)
        else:
            self._over(why)

    def _close(self, channel: Channel) -> None:
        self._unwatch(channel.fd)
        if isinstance(channel, Stream):
            self._counters["retransmits"] += channel.retransmitted()
        channel.close()

    def _close_channels(self) -> None:
        if (session := self._session) is None:
            return
        for stream in session.streams():
            self._close(stream)
        self._close(session.datagram)
        self._unwatch(self._device)


def main() -> None:
    """Run as ``python -m appliance.tunnel.worker FD PARENT``, started by `DataPlane` only; see `orphan`."""
    # The parent decides when we end; Ctrl-C in its terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
