"""The datagram channel's units: sealed once, cut into datagrams, opened once. Pure.

A unit is a batch of up to 64 KiB, sealed as a whole and sent as datagrams that fit the path. In network byte order:

    u8 version | u8 kind | u16 epoch | 8 bytes session id | u64 counter | u32 length of the sealed unit
    u16 bytes in each datagram but the last | u16 number of this datagram

The first line is authenticated, as the unit is, only when it is whole; the second says where a part belongs. So one
forged or lost datagram costs a unit: `sizing` makes units small while that happens. The counter is the nonce and goes
on through the epochs. A unit is taken once (`ReplayWindow`), and not at all when it is far behind the newest. Datagrams
overtake each other, so the keys of past epochs are kept for a while.

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
_HEADER: Final = struct.Struct(PREFIX.format + PLACE.format.lstrip("!"))
OVERHEAD: Final = _HEADER.size

EPOCHS: Final = 4
"""Epochs whose units are opened, at most."""

LARGEST: Final = frame.LARGEST_SEALED
"""Bytes of a sealed unit, tag included."""

SPARE: Final = 0x8000
"""In a part's number: it is a spare, and the rest is its own number."""

_LAST_KIND: Final = int(frame.Kind.ECHO)
_NONCE: Final = struct.Struct("!4xQ")
_SMALLEST_PART: Final = 256
_BITS: Final = 64
_new = tuple.__new__  # as in `frame`: a named tuple's own constructor takes longer than all the rest


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
        return bool(self.number & SPARE)


def read(header: bytes | memoryview, part: int) -> Place | None:
    """Read the header of a datagram with `part` bytes behind it; None if it is none of ours, or contradicts itself."""
    if len(header) < OVERHEAD:
        return None
    version, kind, epoch, session_id, counter, length, size, number = _HEADER.unpack_from(header)
    if version != frame.VERSION or kind > _LAST_KIND or counter >= keys.LAST_COUNTER:
        return None
    if not frame.TAG <= length <= LARGEST:
        return None
    if size < min(_SMALLEST_PART, length):
        return None
    if number & SPARE:
        if number & ~SPARE >= spare.count(-(-length // size)) or part != min(size, length):
            return None
    elif (start := number * size) >= length or part != min(size, length - start):
        return None
    return _new(Place, (kind, epoch, session_id, counter, length, size, number))


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
        self._alone = self._heads[:OVERHEAD]
        self._pieces: list[memoryview] = []
        for number in range(len(self._places)):
            self._pieces.append(self._heads[number * OVERHEAD : (number + 1) * OVERHEAD])
            self._pieces.append(memory[number * size : (number + 1) * size])

    def of(self, prefix: bytes, length: int, most: int) -> list[list[memoryview]]:
        """Return, for one send each, the pieces of at most `most` datagrams that carry the unit of `length` bytes.

        They are spread evenly over the sends, so that no send is left with a single small one. All of it is borrowed
        until the next unit.
        """
        if length <= self._size:  # most are, and nothing is looked at for longer than what comes alone
            self._alone[:] = prefix + self._places[0]
            return [[self._alone, self._memory[:length]]]
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
            pieces += memoryview(prefix + PLACE.pack(self._size, SPARE | number)), memoryview(part)
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
    """Which of the newest counters have been taken: a ring of words of 64 bits (RFC 6479)."""

    WIDTH: Final = 4096

    def __init__(self) -> None:
        self.newest = -1
        self.taken = 0
        self._words = [0] * (self.WIDTH // _BITS + 1)

    def fresh(self, counter: int) -> bool:
        """Return whether a unit with this counter may be taken."""
        behind = self.newest - counter
        if behind < 0:
            return True
        return behind < self.WIDTH and not self._words[counter // _BITS % len(self._words)] >> counter % _BITS & 1

    def take(self, counter: int) -> None:
        """Note that it was taken; it was fresh."""
        words, word = self._words, counter // _BITS
        if counter > self.newest:
            if word > (last := self.newest // _BITS):
                for begun in range(max(last, word - len(words)) + 1, word + 1):
                    words[begun % len(words)] = 0
            self.newest = counter
        words[word % len(words)] |= 1 << counter % _BITS
        self.taken += 1
