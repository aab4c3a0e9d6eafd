"""What single steps of our data plane cost, in this process, without a kernel or a line in between.

    python -m tests.bench.micro [--seconds 0.2] [--json FILE]

Each step is repeated for a while and timed several times; the quickest counts, since whatever else the machine does
only ever makes it slower. The comparison with a bare AES-GCM call shows what our own part of a step is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.tunnel import buffers, frame, keys, virtio
from appliance.tunnel.allow import Sources
from appliance.tunnel.coalesce import coalesce
from appliance.tunnel.fairqueue import FairQueue
from appliance.tunnel.segment import split
from tests.bench.table import figure, grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REPEATS: Final = 5
_SEGMENT: Final = 1448


@dataclass(frozen=True, slots=True)
class Cost:
    """One step: microseconds each time, for so many bytes and packets."""

    step: str
    microseconds: float
    size: int
    packets: int


@dataclass(frozen=True, slots=True)
class Step:
    """Something to time, and what it moves each time."""

    name: str
    work: Callable[[], object]
    size: int
    packets: int = 1


def timed(step: Step, seconds: float) -> Cost:
    """Return the least time that the step took, over several runs of `seconds` in all."""
    count = max(1, int(seconds / _REPEATS / max(_once(step.work, 1), 1e-7)))
    best = min(_once(step.work, count) for _ in range(_REPEATS))
    return Cost(step.name, best * 1e6, step.size, step.packets)


def _once(work: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - begin) / count


def steps() -> Iterator[Step]:
    """Yield every step."""
    for size in (64, 1400, 16 << 10, 64 << 10):
        yield from _cipher(size)
    session = keys.Session.agree(bytes(8), bytes(32), os.urandom(32))
    yield Step("make an opener", lambda: keys.Opener(session, keys.Direction.TO_SERVER, 1), 0)
    for size, count in ((64, 900), (1400, 46), (60_000, 1)):
        yield from _packing(size, count)
    yield from _headers()
    for complete in (True, False):
        yield from _merging(complete=complete)


def _cipher(size: int) -> Iterator[Step]:
    """Sealing and opening one record, beside the library's call alone."""
    text = _length(size)
    session = keys.Session.agree(bytes(8), bytes(32), os.urandom(32))
    plain, record = memoryview(os.urandom(size)), memoryview(bytearray(frame.LARGEST_SEALED + frame.RECORD.size))
    bare, nonce, room = AESGCM(os.urandom(32)), bytes(12), bytearray(size + frame.TAG)
    yield Step(f"AES-256-GCM alone, {text}", lambda: bare.encrypt_into(nonce, plain, None, room), size)
    sealer = keys.Sealer(session, keys.Direction.TO_SERVER, 0)
    yield Step(f"seal, {text}", lambda: sealer.seal(frame.Kind.DATA, plain, record), size)
    length = keys.Sealer(session, keys.Direction.TO_SERVER, 1).seal(frame.Kind.DATA, plain, record)
    sealed, opened = memoryview(bytes(record[:length])), memoryview(bytearray(frame.LARGEST_SEALED))

    def open_first() -> int:
        # An opener takes each counter once, so every time is a first time; making it costs a key schedule.
        return keys.Opener(session, keys.Direction.TO_SERVER, 1).open(frame.read_header(sealed), sealed, opened)

    yield Step(f"make an opener, open, {text}", open_first, size)


def _packing(size: int, count: int) -> Iterator[Step]:
    """Putting `count` packets into batches as the TUN's reader does, and taking them out again."""
    text = f"{count} packets of {_length(size)}"
    pool = buffers.Pool(keep=64)

    def pack() -> buffers.Batch | None:
        queue = FairQueue(pool, Counter())
        for _ in range(count):
            batch = pool.take()
            batch.put(virtio.SINGLE, 0, size, 0.0)
            queue.put(batch, 1, 0.0)
        packed = last = queue.pop(0.0)
        while last is not None:
            pool.give(last)
            last = queue.pop(0.0)
        return packed

    yield Step(f"pack {text}", pack, size * count, count)
    whole = buffers.Batch()
    for _ in range(count):
        whole.put(virtio.SINGLE, 0, size, 0.0)
    filled = whole.memory[: whole.length]
    yield Step(f"unpack {text}", lambda: sum(1 for _ in frame.packets(filled)), size * count, count)


def _merging(*, complete: bool) -> Iterator[Step]:
    """Merging what came in small, with checksums to verify first, or with ones that the kernel makes."""
    segments = split(virtio.UNSUMMED | virtio.TCP, _SEGMENT, memoryview(_tcp_packet(40 + 44 * _SEGMENT)))
    shape = 0 if complete else virtio.UNSUMMED
    small = [(shape, 0, memoryview(_summed(piece) if complete else piece)) for _, _, piece in segments]
    text = "verified" if complete else "unfinished checksums"
    merged = sum(1 for _ in coalesce(small))
    size = sum(len(packet) for _, _, packet in small)
    yield Step(f"merge 44 TCP packets into {merged}, {text}", lambda: sum(1 for _ in coalesce(small)), size, 44)


def _summed(packet: bytearray) -> bytearray:
    """Complete a TCP checksum."""
    packet[36:38] = bytes(2)
    pseudo = bytes(packet[12:20]) + (len(packet) - 20).to_bytes(4) + (6).to_bytes(4)
    odd = 8 if len(packet) & 1 else 0
    left = ((int.from_bytes(packet[20:]) << odd) + int.from_bytes(pseudo)) % 0xFFFF
    packet[36:38] = (0xFFFF - left).to_bytes(2)
    return packet


def _headers() -> Iterator[Step]:
    """What is looked at in each packet that comes out of the tunnel."""
    header, sources = bytearray(virtio.PLAIN), Sources([ip_network("100.64.240.50/32")])
    for name, segment, length in (("TCP super-packet of 60 KB", _SEGMENT, 60_000), ("TCP packet of 1500", 0, 1500)):
        packet = memoryview(_tcp_packet(length))
        shape = virtio.TCP | virtio.UNSUMMED if segment else virtio.UNSUMMED
        yield Step(f"virtio header, {name}", _rebuild(shape, segment, packet, header), length)
    yield Step("source permitted?", lambda: sources.permit(packet), 0)


def _rebuild(shape: int, segment: int, packet: memoryview, header: bytearray) -> Callable[[], None]:
    return lambda: virtio.rebuild(shape, segment, packet, header)


def _tcp_packet(length: int) -> bytearray:
    packet = bytearray(length)
    packet[0], packet[2:4], packet[9], packet[32] = 0x45, length.to_bytes(2), 6, 0x50
    packet[12:16] = bytes((100, 64, 240, 50))
    return packet


def _length(size: int) -> str:
    return f"{size >> 10} KiB" if size >= 16 << 10 and size % 1024 == 0 else f"{size} B"


def table(costs: list[Cost]) -> str:
    """Return the costs for people."""
    rows = [["step", "us", "Gbit/s", "ns per packet"]]
    for cost in costs:
        rate = figure(cost.size * 8 / cost.microseconds / 1000) if cost.size else "-"
        rows.append([cost.step, figure(cost.microseconds), rate, figure(cost.microseconds * 1000 / cost.packets)])
    return grid(rows)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each step")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    costs = [timed(step, options.seconds) for step in steps()]
    sys.stdout.write(table(costs) + "\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
