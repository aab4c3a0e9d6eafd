"""Questions that a person would ask with ping, traceroute, curl and tcpdump, and the figure in the answer.

Each probe runs the real program on a machine of the lab and raises `Failed` when the answer is not the wanted one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from tests.lab.space import PYTHON, Failed, Space

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RTT: Final = re.compile(r"= [\d.]+/([\d.]+)/[\d.]+/[\d.]+ ms")
_RECEIVED: Final = re.compile(r"(\d+) received")
_HOP: Final = re.compile(r"^\s*\d+\s+(\d+\.\d+\.\d+\.\d+|\*)", re.MULTILINE)


def ping(space: Space, address: str, *, count: int = 3, size: int = 56, df: bool = False) -> float:
    """Return the mean round trip in milliseconds; every one of `count` has to come back."""
    options = ["-M", "do"] if df else []
    done = space.run(
        *("ping", "-n", "-c", str(count), "-i", "0.2", "-W", "2", "-s", str(size), *options, address), check=False
    )
    found = _RTT.search(done.stdout)
    if done.returncode or not found or f"{count} received" not in done.stdout:
        raise Failed(f"{space.name}: ping {address} ({size} bytes): {done.stdout}{done.stderr}")
    return float(found[1])


def silence(space: Space, address: str) -> None:
    """See that nothing at all answers: no echo reply and no ICMP error."""
    done = space.run(*("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", address), check=False)
    received = _RECEIVED.search(done.stdout)
    if done.returncode != 1 or not received or received[1] != "0" or "errors" in done.stdout:
        raise Failed(f"{space.name}: something answered for {address}: {done.stdout}{done.stderr}")


def traceroute(space: Space, address: str) -> tuple[str, ...]:
    """Return the hops; the last one has to be `address` itself."""
    done = space.run("traceroute", "-n", "-q", "1", "-w", "2", "-m", "12", address)
    hops = tuple(_HOP.findall(done.stdout))
    if not hops or hops[-1] != address:
        raise Failed(f"{space.name}: traceroute does not reach {address}: {done.stdout}")
    return hops


@dataclass(frozen=True, slots=True)
class Page:
    """What curl got: the status, the seconds it took, and the pod that served it."""

    status: int
    seconds: float
    pod: str


def curl(space: Space, address: str) -> Page:
    """Fetch the root page; the status has to be 200."""
    figures = '\n{"status": %{http_code}, "seconds": %{time_total}}'  # asking for a header as well takes curl 7.84
    done = space.run("curl", "-sS", "-m", "5", "-i", "-w", figures, f"http://{address}/")
    page = json.loads(done.stdout.rpartition("\n")[2])
    pod = re.search(r"^x-pod: (\S+)", done.stdout, re.MULTILINE | re.IGNORECASE)
    if page["status"] != 200 or not pod:
        raise Failed(f"{space.name}: curl http://{address}/: {done.stdout}")
    return Page(200, float(page["seconds"]), pod[1])


def raw_protocol(sender: Space, receiver: Space, address: str) -> float:
    """Send one packet of IP protocol 253 (RFC 3692, for experiments); return the ms until its answer is back."""
    listener = receiver.start("raw", *PYTHON, "tests.lab.raw", "answer", stdout=subprocess.PIPE)
    try:
        assert listener.stdout is not None
        if listener.stdout.readline().strip() != "ready":
            raise Failed(f"{receiver.name}: cannot listen on a raw socket")
        return float(sender.run(*PYTHON, "tests.lab.raw", "ask", address).stdout)
    finally:
        listener.kill()
        listener.communicate()


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An ICMP destination unreachable that a UDP packet met."""

    after_ms: float
    sender: str
    code: int


def unreachable(space: Space, address: str) -> Unreachable:
    """Send one UDP packet and return the ICMP unreachable that it meets; raise `Failed` if none comes within 2 s."""
    return Unreachable(**json.loads(space.run(*PYTHON, "tests.lab.unreachable", address).stdout))


_MARKER: Final = 47001
_SEND: Final = "import socket, sys; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', (sys.argv[1], int(sys.argv[2])))"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Capture:
    """tcpdump at work on one device. What it has not printed yet is waited for, never guessed: see `frames`."""

    log: Path

    @classmethod
    @contextlib.contextmanager
    def open(cls, space: Space, device: str, expression: str) -> Iterator[Self]:
        """Capture what matches a pcap filter until the block ends."""
        label = f"tcpdump-{next(_numbers)}"
        both = f"({expression}) or udp dst port {_MARKER}"
        process = space.start(label, *("tcpdump", "-nn", "-e", "-l", "--immediate-mode", "-i", device, both))
        capture = cls(space.logs / f"{label}.log")
        try:
            capture._wait_for("listening on")
            yield capture
        finally:
            process.kill()
            process.wait()

    def frames(self, sender: Space, address: str) -> tuple[str, ...]:
        """Return the frames so far, one line each, the source MAC address second.

        `sender` sends one UDP packet to `address`, which has to pass the device: all that came before it is then there.
        """
        sender.run(*PYTHON[:1], "-c", _SEND, address, str(_MARKER))
        text = self._wait_for(f".{_MARKER}: UDP")
        return tuple(line for line in text.splitlines() if " > " in line and f".{_MARKER}: UDP" not in line)

    def _wait_for(self, mark: str) -> str:
        deadline = time.monotonic() + 10
        while mark not in (text := self.log.read_text()):
            if time.monotonic() > deadline:
                raise Failed(f"tcpdump does not show {mark!r}: {text}")
            time.sleep(0.02)
        return text


def sent_by(frames: tuple[str, ...], mac: str) -> tuple[str, ...]:
    """Return the frames whose source is `mac`."""
    return tuple(frame for frame in frames if frame.split()[1] == mac)
