"""A long, lossy, narrow path: carry Ethernet frames between two interfaces, late, with losses and at a limited rate.

    python -m tests.lab.wan LEFT RIGHT --delay-ms 57.5 --loss 0.01 --mbps 200 [--queue-ms 100] [--seed 1]

For kernels without netem; run it in the namespace that holds both interfaces. Each direction is a queue that drains at
the given rate and drops at its tail what would wait longer than `--queue-ms`; then each frame is lost with the given
probability, and the rest arrives after the delay. Segmentation offloads must be off at the peers, or a "frame" here is
64 KiB. Losses are drawn from a seeded generator: the same traffic meets the same losses.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4  # linux/if_packet.h: a frame that we sent ourselves
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 16 << 20
_BURST: Final = 64


@dataclass(slots=True)
class Direction:
    """One way through: frames with the time at which each is due at the other side."""

    seconds_per_byte: float
    delay: float
    longest_wait: float
    loss: float
    draw: random.Random
    free: float = 0.0  # when the line has sent all that it took
    queue: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)

    def take(self, frame: bytes, now: float) -> None:
        """Queue a frame, or drop it."""
        begin = max(now, self.free)
        if begin - now > self.longest_wait:
            return
        self.free = begin + len(frame) * self.seconds_per_byte
        if self.draw.random() >= self.loss:
            self.queue.append((self.free + self.delay, frame))

    def due(self, now: float) -> list[bytes]:
        """Return what has arrived by `now`."""
        frames = []
        while self.queue and self.queue[0][0] <= now:
            frames.append(self.queue.popleft()[1])
        return frames


def relay(ends: tuple[socket.socket, socket.socket], ways: tuple[Direction, Direction]) -> None:
    """Carry frames for ever; ways[0] is from ends[0] to ends[1]."""
    while True:
        now = time.monotonic()
        for way, out in zip(ways, reversed(ends), strict=True):
            for frame in way.due(now):
                with contextlib.suppress(OSError):  # a full device queue: one more loss
                    out.send(frame)
        pause = min((way.queue[0][0] - now for way in ways if way.queue), default=0.5)
        readable, _, _ = select.select(ends, [], [], max(0.0, pause))
        now = time.monotonic()
        for way, end in zip(ways, ends, strict=True):
            if end in readable:
                _drain(end, way, now)


def _drain(end: socket.socket, way: Direction, now: float) -> None:
    for _ in range(_BURST):
        try:
            frame, address = end.recvfrom(1 << 16)
        except BlockingIOError:
            return
        if address[2] != _PACKET_OUTGOING:
            way.take(frame, now)


def _open(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    end.bind((interface, 0))
    end.setblocking(False)
    for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
        end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
    return end


def main() -> int:
    """Read the command line and relay until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.wan")
    parser.add_argument("interfaces", nargs=2)
    parser.add_argument("--delay-ms", type=float, default=57.5, help="one way")
    parser.add_argument("--loss", type=float, default=0.0, help="probability per frame and direction")
    parser.add_argument("--mbps", type=float, default=200.0)
    parser.add_argument("--queue-ms", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    one, other = (
        Direction(8 / (options.mbps * 1e6), options.delay_ms / 1e3, options.queue_ms / 1e3, options.loss, draw)
        for _ in options.interfaces
    )
    left, right = (_open(name) for name in options.interfaces)
    relay((left, right), (one, other))
    return 1


if __name__ == "__main__":
    sys.exit(main())
