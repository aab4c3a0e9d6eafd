"""Flows that are held: `python -m tests.lab.flows serve|hold|count ...`, for a pod and for a host of the lab.

`serve ADDRESS PORT` echoes over TCP and over UDP, and puts in front of each echo whom it is for, as the pod sees it.

`hold ADDRESS PORT FILE` keeps one TCP connection and one UDP socket to it, says the next number on both every 20 ms,
and writes to FILE how far the echoes are. It ends when the TCP connection does; a UDP flow bears ICMP errors.

`count ADDRESS PORT RATE` sends numbered datagrams at a rate until SIGTERM, then waits for what is still under way until
no echo has come for a while, and prints which numbers were not echoed.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from tests.lab.space import PYTHON, Failed, Space

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT: Final = 7007
_EVERY: Final = 0.02
_PAUSE: Final = 0.1
"""Seconds without an echo that count as a pause."""

_BUFFER: Final = 8 << 20
_SO_RCVBUFFORCE: Final = 33
_LAST_CALL: Final = 2.0


# ---- the programs ----------------------------------------------------------------------------------------------------


def _serve(where: tuple[str, int]) -> None:
    listener = socket.create_server(where)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    udp.bind(where)
    _say("ready")
    connections: list[socket.socket] = []
    while True:
        for sock in select.select([listener, udp, *connections], [], [])[0]:
            if sock is listener:
                connections.append(listener.accept()[0])
            elif sock is udp:
                data, peer = udp.recvfrom(2048)
                with contextlib.suppress(OSError):
                    udp.sendto(f"{peer[0]}:{peer[1]} ".encode() + data, peer)
            else:
                _echo(sock, connections)


def _echo(sock: socket.socket, connections: list[socket.socket]) -> None:
    try:
        data = sock.recv(1 << 16)
        peer = "{}:{}".format(*sock.getpeername()[:2])
        sock.sendall(b"".join(f"{peer} ".encode() + line for line in data.splitlines(keepends=True)))
    except OSError:
        data = b""
    if not data:
        connections.remove(sock)
        sock.close()


@dataclass
class _Held:
    """How far one flow is; `sources`: whom its echoes were for, `pauses`: [since when, how many seconds]."""

    echoed: int = 0
    sources: list[str] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    heard: float = 0.0

    def hear(self, text: str) -> None:
        source, _, number = text.partition(" ")
        now = time.time()
        if self.heard and now - self.heard > _PAUSE:
            self.pauses.append((self.heard, now - self.heard))
        self.heard, self.echoed = now, int(number)
        if source not in self.sources:
            self.sources.append(source)


def _hold(where: tuple[str, int], file: Path) -> None:
    tcp = socket.create_connection(where)
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.connect(where)
    flows, rest, number = {tcp: _Held(), udp: _Held()}, b"", 0
    while True:
        number += 1
        tcp.sendall(f"{number}\n".encode())
        with contextlib.suppress(OSError):
            udp.send(str(number).encode())
        until = time.monotonic() + _EVERY
        while (left := until - time.monotonic()) > 0:
            for sock in select.select([tcp, udp], [], [], left)[0]:
                if sock is udp:
                    with contextlib.suppress(OSError):
                        flows[udp].hear(udp.recv(2048).decode())
                    continue
                data = tcp.recv(1 << 16)
                if not data:
                    raise SystemExit("the TCP connection ended")
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if int(line.split()[1]) != flows[tcp].echoed + 1:
                        raise SystemExit(f"{line!r} after {flows[tcp].echoed}")
                    flows[tcp].hear(line.decode())
        fresh = file.with_name(f".{file.name}")
        fresh.write_text(json.dumps({"tcp": vars(flows[tcp]), "udp": vars(flows[udp])}))
        fresh.replace(file)


def _count(where: tuple[str, int], rate: int) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    udp.connect(where)
    udp.setblocking(False)
    missing: set[int] = set()
    sent, start = 0, time.monotonic()
    heard = start
    _say("ready")
    # Not until a time by the schedule: on a busy machine this program and the echo are late, and that loses nothing.
    while not ended or (missing and time.monotonic() < heard + _LAST_CALL):
        while not ended and sent < (time.monotonic() - start) * rate:
            missing.add(sent)
            udp.send(str(sent).encode())
            sent += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                missing.discard(int(udp.recv(2048).decode().split()[1]))
                heard = time.monotonic()
        select.select([udp], [], [], 0.001)
    _say(json.dumps({"sent": sent, "missing": sorted(missing)}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ---- for tests -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(pod: Space, address: str) -> Iterator[None]:
    """Have the pod echo at `address`, port `PORT`, until the block ends."""
    process = pod.start("echo", *PYTHON, "tests.lab.flows", "serve", address, str(PORT), stdout=subprocess.PIPE)
    try:
        _ready(process)
        yield
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Held:
    """One TCP and one UDP flow, held by a host."""

    process: subprocess.Popen[str]
    file: Path

    @classmethod
    @contextlib.contextmanager
    def open(cls, host: Space, address: str) -> Iterator[Self]:
        """Hold them until the block ends."""
        file = host.logs / "held.json"
        file.unlink(missing_ok=True)
        process = host.start("held", *PYTHON, "tests.lab.flows", "hold", address, str(PORT), str(file))
        try:
            yield cls(process, file)
        finally:
            process.kill()
            process.wait()

    def state(self) -> dict[str, dict[str, Any]]:
        """Return how far both flows are; raise `Failed` if they are not held any more."""
        if self.process.poll() is not None:
            raise Failed(f"the flows broke: {(self.file.parent / 'held.log').read_text()}")
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}

    def at(self) -> int:
        """Return the number up to which both have been echoed."""
        state = self.state()
        return min(flow["echoed"] for flow in state.values()) if state else 0

    def sources(self) -> dict[str, list[str]]:
        """Return whom the pod has seen behind each flow, in order."""
        return {name: flow["sources"] for name, flow in self.state().items()}

    def pause(self, since: float) -> float:
        """Return the longest pause of the UDP flow, in seconds, that ended after `since` (seconds since the epoch)."""
        found = [length for begun, length in self.state()["udp"]["pauses"] if begun + length > since]
        return max(found, default=0.0)


@dataclass(slots=True)
class Counted:
    """What became of numbered datagrams; known when the block has ended."""

    sent: int = 0
    missing: tuple[int, ...] = ()

    @classmethod
    @contextlib.contextmanager
    def open(cls, host: Space, address: str, rate: int) -> Iterator[Self]:
        """Send numbered datagrams at `rate` a second until the block ends."""
        argv = (*PYTHON, "tests.lab.flows", "count", address, str(PORT), str(rate))
        process, counted = host.start("count", *argv, stdout=subprocess.PIPE), cls()
        try:
            _ready(process)
            yield counted
            process.terminate()
            said = json.loads(process.communicate(timeout=20)[0])
            counted.sent, counted.missing = said["sent"], tuple(said["missing"])
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise Failed("a flow's program did not start")


def main() -> None:
    """Run one of the programs."""
    what, address, port, *more = sys.argv[1:]
    where = (address, int(port))
    match what:
        case "serve":
            _serve(where)
        case "hold":
            _hold(where, Path(more[0]))
        case "count":
            _count(where, int(more[0]))


if __name__ == "__main__":
    main()
