"""The data plane: one process per link, one thread, one epoll loop. It knows sockets, keys and the TUN, no more.

Its parent (gtun or gtund) does TLS, names, leases and addresses, and hands down through a socket pair what is needed to
move packets: the TUN's descriptor, a session's secret, connected sockets. The same program serves both ends.

    parent -> worker   device (with the TUN)   session   connection (with a socket)   end
    worker -> parent   alive   over (why)      counters (each second)

    outbound   TUN -> batch -> queue -> seal -> socket
    inbound    socket -> open -> permitted source? -> rebuild the virtio header -> TUN

It ends with its parent, by PR_SET_PDEATHSIG and by the end of the socket pair: a TUN that an orphan holds is busy.
"""

from __future__ import annotations

import base64
import ctypes
import errno
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

from . import buffers, frame, keys, tun, virtio
from .allow import Sources
from .liveness import Liveness
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
        self._session: _Session | None = None
        self._stream: Stream | None = None
        self._header = bytearray(virtio.PLAIN)
        self._counters: Counter[str] = Counter()
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

    def _tell(self, **message: object) -> None:
        try:
            self._parent.send(json.dumps(message).encode())
        except BlockingIOError:  # a parent that does not listen loses reports, not packets
            self._counters["lost_reports"] += 1
        except OSError:
            raise SystemExit(0) from None

    def _take_device(self, _message: dict[str, Any], fds: list[int]) -> None:
        self._device = fds[0]

    def _begin(self, message: dict[str, Any], _fds: list[int]) -> None:
        """Start a session. The old one, if there is one, ends without the device's carrier falling in between."""
        self._drop_stream()
        self._session = _Session(message, time.monotonic())

    def _connect(self, message: dict[str, Any], fds: list[int]) -> None:
        sock = socket.socket(fileno=fds[0])
        if self._session is None or self._stream is not None:
            sock.close()
            return
        session, number = self._session, message["connection"]
        self._stream = Stream(
            sock,
            keys.Sealer(session.keys, session.direction, number),
            keys.Opener(session.keys, session.direction.opposite, number),
            self._pool,
        )
        self._watch(sock.fileno(), select.EPOLLIN, self._from_stream)
        self._watch(self._device, select.EPOLLIN, self._from_device)

    def _end(self) -> None:
        self._drop_stream()
        self._session = None
        if self._device >= 0:
            tun.set_carrier(self._device, up=False)

    def _over(self, why: str) -> None:
        session = self._session
        self._end()
        if session is not None:
            self._tell(**{"is": "over", "session": session.keys.session_id.hex(), "why": why})

    # --- time ------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        session = self._session
        return min(self._report_at, session.liveness.next_deadline()) if session else self._report_at

    def _keep_time(self, now: float) -> None:
        if now >= self._report_at:
            self._report_at = now + _REPORT_EVERY
            self._report()
        session = self._session
        if session is None:
            return
        if session.liveness.dead(now):
            self._over("nothing came back through the tunnel for 3 seconds")
            return
        if self._stream is not None and (probe := session.liveness.due(now)) is not None:
            self._stream.say(frame.Kind.PROBE, probe)
            self._flush()

    def _report(self) -> None:
        rtt = self._session.liveness.rtt if self._session else None
        self._tell(**{"is": "counters", "rtt": rtt, "counters": self._counters})

    # --- outbound --------------------------------------------------------------------------------------------------

    def _from_device(self, _events: int) -> None:
        stream, now = self._stream, time.monotonic()
        if stream is None:
            return
        for _ in range(_TURN):
            if self._fill(stream, now):
                break
            self._flush()
            if self._stream is None:
                return
        self._flush()

    def _fill(self, stream: Stream, now: float) -> bool:
        """Read packets until about a batch has come; return whether the device has no more."""
        count, total, header = self._counters, 0, self._header
        while total < frame.BATCH:
            batch = self._pool.take()
            try:
                length = os.readv(self._device, (header, batch.room)) - virtio.HEADER.size
            except BlockingIOError:
                self._pool.give(batch)
                return True
            except OSError as error:
                self._pool.give(batch)
                self._over(f"the device broke: {error.strerror}")
                return True
            total += length
            if not stream.queue.admit(now):
                count["drop_queue"] += 1
                self._pool.give(batch)
                continue
            shape, segment = virtio.shape(header)
            batch.put(shape, segment, length, now)
            stream.queue.put(batch, now)
            count["tx_packets"] += 1
            count["tx_bytes"] += length
            if shape & virtio.SEGMENTED:
                count["tx_super_packets"] += 1
        return False

    def _flush(self) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            wanted = select.EPOLLIN if stream.flush() else select.EPOLLIN | select.EPOLLOUT
        except Closed as error:
            self._over(str(error))
            return
        self._watch(stream.sock.fileno(), wanted, self._from_stream)

    # --- inbound ---------------------------------------------------------------------------------------------------

    def _from_stream(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        stream, session = self._stream, self._session
        if stream is None or session is None or not events & ~select.EPOLLOUT:
            return
        try:
            for kind, plain in stream.receive():
                if kind is frame.Kind.DATA:
                    self._deliver(session, plain)
                elif kind is frame.Kind.PROBE:
                    stream.say(frame.Kind.ECHO, bytes(plain))
                else:
                    self._echoed(session, bytes(plain))
        except (Closed, frame.RemoteProtocolError) as error:
            self._over(str(error))
            return
        self._flush()

    def _echoed(self, session: _Session, payload: bytes) -> None:
        was_alive = session.liveness.alive
        session.liveness.echoed(payload, time.monotonic())
        if session.liveness.alive and not was_alive:
            tun.set_carrier(self._device, up=True)
            self._tell(**{"is": "alive", "session": session.keys.session_id.hex()})

    def _deliver(self, session: _Session, batch: memoryview) -> None:
        count, header = self._counters, self._header
        for shape, segment, packet in frame.packets(batch):
            try:
                virtio.rebuild(shape, segment, packet, header)
                if not session.sources.permit(packet):
                    count["drop_source"] += 1
                    continue
                os.writev(self._device, (header, packet))
            except virtio.BadPacket:
                count["drop_shape"] += 1
                continue
            except OSError as error:
                count["drop_device_" + errno.errorcode.get(error.errno or 0, "other").lower()] += 1
                continue
            count["rx_packets"] += 1
            count["rx_bytes"] += len(packet)
            if shape & virtio.SEGMENTED:
                count["rx_super_packets"] += 1

    # --- the loop's book-keeping -----------------------------------------------------------------------------------

    def _watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def _drop_stream(self) -> None:
        if self._stream is None:
            return
        for fd in (self._stream.sock.fileno(), self._device):
            self._epoll.unregister(fd)
            del self._handlers[fd]
        self._stream.close()
        self._stream = None


class _Session:
    """What the parent said of a session, and whether it lives."""

    def __init__(self, message: dict[str, Any], now: float) -> None:
        self.keys = keys.Session(bytes.fromhex(message["session"]), base64.b64decode(message["secret"]))
        self.direction = keys.Direction.TO_SERVER if message["role"] == "client" else keys.Direction.TO_CLIENT
        self.sources = Sources(ipaddress.ip_network(prefix) for prefix in message["sources"])
        self.liveness = Liveness(now)


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
