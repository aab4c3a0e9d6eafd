"""The datagram channel's units: sealed once, cut into datagrams, put together again. Pure: the clock is passed in.

A unit is a batch of up to 64 KiB, sealed as a whole and sent as datagrams that fit the path. In network byte order:

    u8 version | u8 kind | u16 epoch | 8 bytes session id | u64 counter | u32 length of the sealed unit
    u16 bytes in each datagram but the last | u16 number of this datagram

The first line is authenticated, as the unit is, only when it is whole; the second says where a part belongs. So one
forged or lost datagram costs a unit: `Sizing` makes units small while that happens. The counter is the nonce and goes
on through the epochs. A unit is taken once (`ReplayWindow`), and not at all when it is far behind the newest (RFC 6479
describes such a window). Datagrams overtake each other, so the keys of past epochs are kept for a while.

A unit may come with spare parts (`spare`), whose numbers have a bit of their own.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import frame, keys, spare

PREFIX: Final = struct.Struct("!BBH8sQI")
PLACE: Final = struct.Struct("!HH")
OVERHEAD: Final = PREFIX.size + PLACE.size

EPOCHS: Final = 4
"""Epochs whose units are opened, at most."""

LARGEST: Final = frame.LARGEST_SEALED
"""Bytes of a sealed unit, tag included."""

_SPARE: Final = 0x8000
"""In a part's number: it is a spare, and the rest is its own number."""

_LAST_KIND: Final = int(frame.Kind.ECHO)
_NONCE: Final = struct.Struct("!4xQ")
_SMALLEST_PART: Final = 256


class Place(NamedTuple):
    """What a datagram says of itself."""

    kind: int
    epoch: int
    session_id: bytes
    counter: int
    length: int
    size: int
    number: int

    @property
    def datagrams(self) -> int:
        """Return how many datagrams the unit came in, spare ones aside."""
        return -(-self.length // self.size)

    @property
    def spare(self) -> bool:
        """Return whether this is a spare part."""
        return bool(self.number & _SPARE)


def read(header: bytes | memoryview, part: int) -> Place | None:
    """Read the header of a datagram with `part` bytes behind it; None if it is none of ours, or contradicts itself."""
    if len(header) < OVERHEAD:
        return None
    version, kind, epoch, session_id, counter, length = PREFIX.unpack_from(header)
    size, number = PLACE.unpack_from(header, PREFIX.size)
    if version != frame.VERSION or kind > _LAST_KIND or not frame.TAG <= length <= LARGEST:
        return None
    if size < min(_SMALLEST_PART, length):
        return None
    if number & _SPARE:
        if number & ~_SPARE >= spare.count(-(-length // size)) or part != min(size, length):
            return None
    elif (start := number * size) >= length or part != min(size, length - start):
        return None
    return Place(kind, epoch, session_id, counter, length, size, number)


@functools.cache
def _places(size: int) -> list[bytes]:
    """Return the second lines of all headers of a unit that is cut into `size` bytes."""
    return [PLACE.pack(size, number) for number in range(-(-LARGEST // size))]


def _heads(prefix: bytes, places: list[bytes]) -> bytes:
    """Return the headers of these datagrams of a unit, one behind the other."""
    return prefix + prefix.join(places)


def run(heads: bytes, place: Place, parts: int) -> bool:
    """Return whether these headers, one behind the other, are of one unit's datagrams in order, from `place` on.

    `parts`: how many bytes followed them in all, which has to be what that many datagrams of the unit carry.
    """
    count = len(heads) // OVERHEAD
    if parts != min(count * place.size, place.length - place.number * place.size):
        return False
    return heads == _heads(heads[: PREFIX.size], _places(place.size)[place.number : place.number + count])


class Sealer:
    """Seals units in one direction of one session."""

    def __init__(self, session: keys.Session, direction: keys.Direction) -> None:
        self._direction, self._session_id = direction, session.session_id
        self.counter = 0
        self.rekey(session)

    def rekey(self, session: keys.Session) -> None:
        """Seal with this epoch's key from now on; the peer has said that it can open it."""
        self._aead = AESGCM(session.key(self._direction, keys.DATAGRAMS))
        self._epoch, self._first = session.epoch, self.counter

    @property
    def used(self) -> int:
        """Return how many units the present key has sealed."""
        return self.counter - self._first

    def seal(self, kind: int, plain: memoryview | bytes, sealed: memoryview) -> tuple[bytes, int]:
        """Write the sealed unit into `sealed`; return (the prefix of its datagrams, its length in bytes)."""
        if self.counter >= keys.LAST_COUNTER:
            raise frame.LocalProtocolError("a key has sealed all that it may")
        length = len(plain) + frame.TAG
        prefix = PREFIX.pack(frame.VERSION, kind, self._epoch, self._session_id, self.counter, length)
        self._aead.encrypt_into(_NONCE.pack(self.counter), plain, prefix, sealed[:length])
        self.counter += 1
        return prefix, length


class Cuts:
    """The memory that units are sealed into, `memory`, cut into parts of `size` bytes once and for all.

    To cut every unit anew would cost more than to seal it: there is a view of memory for each part.
    """

    def __init__(self, memory: memoryview, size: int) -> None:
        self._memory, self._size = memory, size
        self._places = _places(size)
        self._heads = memoryview(bytearray(len(self._places) * OVERHEAD))
        self._pieces: list[memoryview] = []
        for number in range(len(self._places)):
            self._pieces.append(self._heads[number * OVERHEAD : (number + 1) * OVERHEAD])
            self._pieces.append(memory[number * size : (number + 1) * size])

    def of(self, prefix: bytes, length: int, most: int) -> list[list[memoryview]]:
        """Return, for one send each, the pieces of at most `most` datagrams that carry the unit of `length` bytes.

        They are spread evenly over the sends, so that no send is left with a single small one. All of it is borrowed
        until the next unit.
        """
        count = -(-length // self._size)
        self._heads[: count * OVERHEAD] = _heads(prefix, self._places[:count])
        pieces = self._pieces[: 2 * count]
        pieces[-1] = self._memory[(count - 1) * self._size : length]
        each = 2 * -(-count // -(-count // most))
        return [pieces[at : at + each] for at in range(0, 2 * count, each)]

    def spares(self, prefix: bytes, length: int, most: int) -> list[list[memoryview]]:
        """Return the same of the spare datagrams of this unit."""
        pieces: list[memoryview] = []
        for number, part in enumerate(spare.make(self._memory[:length], self._size)):
            pieces += memoryview(prefix + PLACE.pack(self._size, _SPARE | number)), memoryview(part)
        return [pieces[at : at + 2 * most] for at in range(0, len(pieces), 2 * most)]


class Opener:
    """Opens units in one direction of one session, each at most once."""

    def __init__(self, session: keys.Session, direction: keys.Direction) -> None:
        self._aeads: dict[int, AESGCM] = {}
        self._direction, self._session_id = direction, session.session_id
        self._epoch, self._first = session.epoch, 0
        self.window = ReplayWindow()
        self.install(session)

    def install(self, session: keys.Session) -> None:
        """Be ready for units of this epoch, too."""
        self._aeads[session.epoch] = AESGCM(session.key(self._direction, keys.DATAGRAMS))
        for epoch in sorted(self._aeads)[:-EPOCHS]:
            del self._aeads[epoch]

    def forget(self) -> None:
        """Forget the keys before the newest one that the peer has used."""
        self._aeads = {epoch: aead for epoch, aead in self._aeads.items() if epoch >= self._epoch}

    @property
    def used(self) -> int:
        """Return how many units the peer has sealed with its present key, of which some may be lost."""
        return self.window.newest + 1 - self._first

    def open(self, place: Place, sealed: memoryview, plain: memoryview) -> int:
        """Open a whole unit into `plain`; return the length in bytes, or raise `NotAuthentic`."""
        aead = self._aeads.get(place.epoch)
        if aead is None or not self.window.fresh(place.counter):
            raise keys.NotAuthentic("a unit that was there before, or of no epoch that we know")
        prefix = PREFIX.pack(frame.VERSION, place.kind, place.epoch, self._session_id, place.counter, place.length)
        length = place.length - frame.TAG
        try:
            aead.decrypt_into(_NONCE.pack(place.counter), sealed, prefix, plain[:length])
        except Exception as error:  # cryptography raises InvalidTag; anything else here is as good a reason to drop it
            raise keys.NotAuthentic("a unit that the peer did not seal") from error
        self.window.take(place.counter)
        if place.epoch > self._epoch:
            self._epoch, self._first = place.epoch, place.counter
        return length


class ReplayWindow:
    """Which of the newest counters have been taken."""

    WIDTH: Final = 4096

    def __init__(self) -> None:
        self.newest = -1
        self.taken = 0
        self._seen = 0  # bit n: newest - n was taken

    def fresh(self, counter: int) -> bool:
        """Return whether a unit with this counter may be taken."""
        behind = self.newest - counter
        return behind < 0 or (behind < self.WIDTH and not self._seen >> behind & 1)

    def take(self, counter: int) -> None:
        """Note that it was taken; it was fresh."""
        ahead = counter - self.newest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << self.WIDTH) - 1) if ahead < self.WIDTH else 1
            self.newest = counter
        else:
            self._seen |= 1 << -ahead
        self.taken += 1


_Unit = tuple[int, int, bytes, int, int, int]
"""What all datagrams of a unit say alike: a `Place` without its number."""


class _Partial:
    """A unit that is not whole yet."""

    __slots__ = ("memory", "missing", "place", "seen", "spares", "tries", "until")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(LARGEST))

    def begin(self, place: Place, until: float) -> None:
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

    def add(self, place: Place, count: int, parts: memoryview, now: float) -> memoryview | None:
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
            partial.spares[place.number & ~_SPARE] = int.from_bytes(parts, "little")
        elif not self._put(partial, place, count, parts):
            return None
        if not partial.whole():
            return None
        partial.tries += 1
        if partial.tries > self.TRIES:
            self._abandon(key)
            return None
        return partial.memory[: place.length]

    def _put(self, partial: _Partial, place: Place, count: int, parts: memoryview) -> bool:
        """Return whether that is anything new."""
        bits = (1 << count) - 1 << place.number
        start = place.number * place.size
        there = partial.memory[start : start + len(parts)]
        if partial.seen & bits:
            if partial.seen & bits == bits and there == parts:
                return False  # a datagram that came twice
            self.contradictions += 1
        partial.missing -= (bits & ~partial.seen).bit_count()
        partial.seen |= bits
        there[:] = parts
        return True

    def done(self, place: Place) -> None:
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


class Sizing:
    """How many bytes a unit may hold, by what the peer says of those that arrived.

    A unit is lost with any of its datagrams, so loss shrinks units, at once and far; every second without grows them.
    """

    GROW_EVERY: Final = 1.0
    TOLERATED: Final = 0.002
    """Share of units lost that is taken for chance."""

    def __init__(self) -> None:
        self.limit = frame.BATCH
        self.smallest = 0
        self.loss = 0.0
        self._reported = (0, 0)
        self._grow_at = 0.0

    def arrived(self, sent: int, taken: int) -> float:
        """Return the share that arrived of the units since the last report, before that is heard as `reported`."""
        sent_since, taken_since = sent - self._reported[0], taken - self._reported[1]
        return min(1.0, max(0.0, taken_since / sent_since)) if sent_since > 0 else 0.0

    def reported(self, sent: int, taken: int, now: float, *, shrink: bool = True) -> None:
        """Hear from the peer that it has taken `taken` of the first `sent` units of this session.

        Without `shrink`, what is missing has another reason than the length of units.
        """
        sent_since, taken_since = sent - self._reported[0], taken - self._reported[1]
        if sent_since <= 0 or taken_since < 0:
            return
        self._reported = (sent, taken)
        self.loss = max(0.0, 1 - taken_since / sent_since)
        if self.loss > self.TOLERATED and not shrink:
            self._grow_at = now + self.GROW_EVERY
        elif self.loss > self.TOLERATED:
            self.limit = max(self.smallest, self.limit // 8)
            self._grow_at = now + self.GROW_EVERY
        elif now >= self._grow_at:
            self.limit = min(frame.BATCH, self.limit * 2)
            self._grow_at = now + self.GROW_EVERY
