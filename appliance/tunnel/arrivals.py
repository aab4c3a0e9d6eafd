"""Datagrams as they arrive, laid so that the parts of a unit lie one behind the other. Thin.

With UDP_GRO (linux/udp.h) the kernel hands over what came in a row, joined: datagrams of one size, but for the last. A
read that is scattered over headers and parts in turn then brings a whole unit into one piece of memory, with no copy.
Where nobody joins them, each is read to behind the last one, and all that were waiting are looked at as one.

That works for datagrams of the size that was expected; what comes otherwise is put straight by copying.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from . import udp, unit

_MOST: Final = 128
"""Datagrams that memory is laid out for, at most. The kernel joins no more than 64 KiB of them."""

_LEAST: Final = (1 << 16) // _MOST
"""Bytes of a datagram for whose like memory is laid out: smaller ones, joined, might not find room."""

_ALONE: Final = 4
"""Reads of one datagram each after which no memory is laid out for more: what nobody joins should not cost that."""

_PIECES: Final = 2
"""Of one datagram: header and part."""

Arrival = tuple[unit.Place | None, int, memoryview]
"""The place of the first of so many parts in a row, None if it is none of ours, and the parts."""


class Arrivals:
    """The memory of one channel's reads. `expected`: bytes of a unit in each datagram."""

    def __init__(self, part: int) -> None:
        self.expected = self._alone = 0
        self._heads = self._parts = memoryview(b"")
        self._spill = memoryview(bytearray(1 << 16))
        self._joined: list[memoryview] = []
        self._single: list[list[memoryview]] = []
        self._expect(part)

    def read(self, sock: socket.socket, *, calm: bool = False) -> Iterable[Arrival]:
        """Read and return what came, borrowed until the next time; raise `OSError` as the socket does.

        That is one read, or several for datagrams that come by themselves, unless `calm` says that no more are waiting.
        """
        layout = self._joined if self._alone < _ALONE else self._single[0]
        length, ancillary, _, _ = sock.recvmsg_into(layout, 64)
        size = udp.joined(length, ancillary)
        self._alone = self._alone + 1 if length == size else 0
        part = length - unit.OVERHEAD
        if part == self.expected == size - unit.OVERHEAD and self._alone >= _ALONE and not calm:
            return self._read_on(sock)
        if 0 <= part <= self.expected and length == size:  # one, where one was laid out for
            return ((unit.read(self._heads, part), 1, self._parts[:part]),)
        return self._sort(length, size, layout)

    def _read_on(self, sock: socket.socket) -> Iterable[Arrival]:
        """Read to behind a full datagram those that follow it, up to the first that is not as long."""
        length = step = unit.OVERHEAD + self.expected
        for layout in self._single[1:]:
            try:
                more, ancillary, _, _ = sock.recvmsg_into(layout, 64)
            except OSError:  # nothing is waiting; or an ICMP error came back, which is judged elsewhere
                break
            size = udp.joined(more, ancillary)
            if not 0 < more == size <= step:  # joined ones, one that is larger, or an empty one
                self._alone = 0
                return itertools.chain(self._sort(length, step, self._joined), self._sort(more, size, layout))
            length += more
            if more < step:
                break
        return self._sort(length, step, self._joined)

    def _sort(self, length: int, size: int, layout: list[memoryview]) -> Iterator[Arrival]:
        """Yield `length` bytes of datagrams of `size` bytes each, the last one perhaps shorter, read into `layout`."""
        step = unit.OVERHEAD + self.expected
        small = size < length <= step  # several, joined, that lie where one was laid out for
        if small or (length > step and (size != step or layout is not self._joined)):
            straight = memoryview(b"".join(layout[:_PIECES] if small else layout)[:length])
            # Larger ones tell of what size the peer's datagrams are: lay memory out for these next time.
            if not small and size >= _LEAST and size != step:
                self._expect(size - unit.OVERHEAD)
            for start in range(0, length, size):
                yield alone(straight[start : start + size])
            return
        count = max(1, -(-length // step))
        if length - (count - 1) * step < unit.OVERHEAD:  # the last one is too short even for a header
            yield None, 1, self._spill[:0]
            count -= 1
            length = count * step
            if count <= 0:
                return
        parts = self._parts[: length - count * unit.OVERHEAD]
        heads = bytes(self._heads[: count * unit.OVERHEAD])
        place = unit.read(heads, min(self.expected, len(parts)))
        if place is not None and (count == 1 or unit.run(heads, place, len(parts))):
            yield place, count, parts
            return
        for number in range(count):
            part = parts[number * self.expected : (number + 1) * self.expected]
            yield unit.read(heads[number * unit.OVERHEAD :], len(part)), 1, part

    def _expect(self, part: int) -> None:
        """Lay memory out so that the kernel puts the parts of a unit, cut into `part` bytes, one behind the other."""
        most = min(_MOST, -(-unit.LARGEST // part))
        self.expected, self._alone = part, 0
        self._heads = memoryview(bytearray(most * unit.OVERHEAD))
        self._parts = memoryview(bytearray(most * part))
        self._joined, self._single = [], []
        for number in range(most):
            head = self._heads[number * unit.OVERHEAD : (number + 1) * unit.OVERHEAD]
            place = self._parts[number * part : (number + 1) * part]
            self._joined += head, place
            self._single.append([head, place, self._spill])


def alone(datagram: memoryview) -> Arrival:
    """Return one datagram as it would arrive by itself."""
    part = datagram[unit.OVERHEAD :]
    return unit.read(datagram, len(part)), 1, part
