"""Units as they are sealed, cut and received, for tests."""

from __future__ import annotations

from appliance.tunnel import frame, unit
from appliance.tunnel.keys import Direction, Session
from appliance.tunnel.reassembly import Reassembly

SESSION = Session.agree(b"sessions", b"c" * 32, b"s" * 32)
TO_SERVER = Direction.TO_SERVER


def datagrams(sealer: unit.Sealer, plain: bytes, size: int = 1400, most: int = 44) -> list[bytes]:
    """Return the datagrams of one unit, in order."""
    sealed = memoryview(bytearray(unit.LARGEST))
    prefix, length = sealer.seal(frame.Kind.DATA, plain, sealed)
    out = []
    for pieces in unit.Cuts(sealed, size).of(prefix, length, most):
        out += [bytes(head) + bytes(part) for head, part in zip(pieces[::2], pieces[1::2], strict=True)]
    return out


def spare(sealer: unit.Sealer, plain: bytes, size: int) -> tuple[list[bytes], list[bytes]]:
    """Return the datagrams of one unit, and its spare ones."""
    sealed = memoryview(bytearray(unit.LARGEST))
    prefix, length = sealer.seal(frame.Kind.DATA, plain, sealed)
    cuts = unit.Cuts(sealed, size)
    return joined(cuts.of(prefix, length, 44)), joined(cuts.spares(prefix, length, 44))


def joined(sends: list[list[memoryview]]) -> list[bytes]:
    return [bytes(a) + bytes(b) for send in sends for a, b in zip(send[::2], send[1::2], strict=True)]


class Receiver:
    """Takes datagrams one at a time and keeps what units they made."""

    def __init__(self) -> None:
        self.opener = unit.Opener(SESSION, TO_SERVER)
        self.reassembly = Reassembly()
        self.units: list[bytes] = []

    def take(self, datagram: bytes, now: float = 0.0) -> None:
        part = memoryview(datagram)[unit.OVERHEAD :]
        place = unit.read(datagram, len(part))
        if place is None or place.session_id != SESSION.session_id:
            return
        sealed = self.reassembly.add(place, 1, part, now)
        if sealed is not None:
            plain = memoryview(bytearray(unit.LARGEST))
            self.units.append(bytes(plain[: self.opener.open(place, sealed, plain)]))
            self.reassembly.done(place)
