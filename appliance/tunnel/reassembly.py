"""Puts units together again from datagrams that overtake, are lost, or are forged. Pure: the clock is passed in.

Nothing in a part proves whose it is before the unit is whole, so everything here is bounded: units under way, the time
that they wait, and how often one that turned out not to be authentic is tried again.
"""

from __future__ import annotations

from typing import Final

from . import spare, unit

_Unit = tuple[int, int, bytes, int, int, int]
"""What all datagrams of a unit say alike: a `Place` without its number."""


class _Partial:
    """A unit that is not whole yet."""

    __slots__ = ("memory", "missing", "place", "seen", "spares", "tries", "until")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(unit.LARGEST))

    def begin(self, place: unit.Place, until: float) -> None:
        self.place, self.until = place, until
        self.seen = self.tries = 0
        self.missing = place.datagrams
        self.spares: dict[int, int] = {}

    def whole(self) -> bool:
        """Return whether the unit is there, filled in from spare parts if need be.

        What is filled in stays missing: a true part that comes later is better than what a forged spare one says. And
        spare parts are used up, or a few forged ones would cost as many tries.
        """
        if self.missing > len(self.spares):
            return False
        whole = self.memory[: self.place.length]
        if self.missing and not spare.mend(whole, self.place.size, self.seen, self.spares):
            return False
        self.spares.clear()
        return True


class Reassembly:
    """Puts units together again, in bounded memory and time.

    `MOST` units are under way at a time, a newer one takes the place of the oldest; none waits longer than `PATIENCE`.

    Parts are not authenticated, so of two that claim the same place the later one counts, and a unit that turned out
    not to be authentic stays for a few more parts (`TRIES`): who forges parts of units that are still to come spoils
    nothing that way.
    """

    MOST: Final = 16
    PATIENCE: Final = 0.5
    TRIES: Final = 8

    def __init__(self) -> None:
        self._partials: dict[_Unit, _Partial] = {}
        self._free: list[_Partial] = []
        self.abandoned = 0
        self.contradictions = 0
        """Parts that said something else than one before in their place: one of the two was forged."""

    def add(self, place: unit.Place, count: int, parts: memoryview, now: float) -> memoryview | None:
        """Take `count` parts in a row, of which `place` is the first's; return the sealed unit once it is whole.

        It is borrowed until the next call, and kept until `done`.
        """
        if len(parts) == place.length:
            return parts
        key = place[:-1]
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = self._new(now)
            partial.begin(place, now + self.PATIENCE)
        if place.spare:
            partial.spares[place.number & ~unit.SPARE] = int.from_bytes(parts, "little")
        elif not self._put(partial, place, count, parts):
            return None
        if not partial.whole():
            return None
        partial.tries += 1
        if partial.tries > self.TRIES:
            self._abandon(key)
            return None
        return partial.memory[: place.length]

    def _put(self, partial: _Partial, place: unit.Place, count: int, parts: memoryview) -> bool:
        """Return whether that is anything new."""
        bits = (1 << count) - 1 << place.number
        start = place.number * place.size
        there = partial.memory[start : start + len(parts)]
        if both := partial.seen & bits:
            if not _agree(there, parts, both >> place.number, place.size):
                self.contradictions += 1
            elif both == bits:
                return False  # datagrams that came twice
        partial.missing -= (bits & ~partial.seen).bit_count()
        partial.seen |= bits
        there[:] = parts
        return True

    def done(self, place: unit.Place) -> None:
        """Forget a unit that was taken, or will never be."""
        partial = self._partials.pop(place[:-1], None)
        if partial is not None:
            self._free.append(partial)

    def _new(self, now: float) -> _Partial:
        for key in [key for key, partial in self._partials.items() if partial.until <= now]:
            self._abandon(key)
        if len(self._partials) >= self.MOST:
            self._abandon(next(iter(self._partials)))
        return self._free.pop() if self._free else _Partial()

    def _abandon(self, key: _Unit) -> None:
        self._free.append(self._partials.pop(key))
        self.abandoned += 1


def _agree(some: memoryview, others: memoryview, which: int, size: int) -> bool:
    """Tell whether, of parts of `size` bytes, those say the same whose bits are set in `which`."""
    return all(
        some[at * size : (at + 1) * size] == others[at * size : (at + 1) * size]
        for at in range(which.bit_length())
        if which >> at & 1
    )
