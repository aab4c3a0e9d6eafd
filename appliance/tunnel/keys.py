"""Which key seals what. Pure.

Both ends throw in 32 fresh random bytes; HKDF-SHA256 (RFC 5869) makes of them one AES-256-GCM key for each session,
direction, connection and epoch. The nonce is the record's 64-bit counter, which starts at 0 with the connection, goes
on through its epochs and never goes back, so no pair of key and nonce comes twice; a connection's number is never used
again in its session. Keys live in memory only.

An epoch ends by both ends throwing in random bytes once more. Its secret is made from the one before, which is then
forgotten: whoever learns today's keys cannot open what was recorded yesterday.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import frame

SESSION_ID: Final = 8
"""Bytes of a session id, random, chosen by the server."""

RANDOM: Final = 32
"""Random bytes that each end contributes to a session."""

LAST_COUNTER: Final = 1 << 48
"""Far below the 2^64 of the field; a session is made anew long before."""

LAST_EPOCH: Final = 0xFFFF
"""What a datagram's header has room for."""

DATAGRAMS: Final = 0xFFFF
"""The datagram channel's number in key derivation; no TCP connection is given it."""

_EPOCHS: Final = 16
"""Whose records are opened, at most; more than can be made while one record is on its way."""

_HEADER: Final = frame.RECORD.size
_NONCE: Final = struct.Struct("!4xQ")
_INFO: Final = struct.Struct("!HI")


class Direction(Enum):
    """Who seals."""

    TO_SERVER = b"nexthop 1 to server"
    TO_CLIENT = b"nexthop 1 to client"

    @property
    def opposite(self) -> Direction:
        """Return the other one."""
        return Direction.TO_CLIENT if self is Direction.TO_SERVER else Direction.TO_SERVER


class NotAuthentic(Exception):
    """A record was not made by the peer of this session, or not now."""


@dataclass(frozen=True, slots=True)
class Session:
    """What both ends know of a session in one epoch; the handshake makes the first."""

    session_id: bytes
    secret: bytes = field(repr=False)
    epoch: int = 0

    @classmethod
    def agree(cls, session_id: bytes, client_random: bytes, server_random: bytes) -> Session:
        """Derive the session's secret; both ends call this with the same values."""
        return cls(session_id, _extract(session_id, client_random + server_random))

    def renew(self, client_random: bytes, server_random: bytes) -> Session:
        """Derive the next epoch; both ends call this with the same values."""
        if self.epoch >= LAST_EPOCH:
            raise frame.LocalProtocolError("a session has no more epochs")
        return Session(self.session_id, _extract(self.secret, client_random + server_random), self.epoch + 1)

    def key(self, direction: Direction, connection: int) -> bytes:
        """Return the 32-byte key of one direction of one connection in this epoch."""
        return _expand(self.secret, direction.value + _INFO.pack(connection, self.epoch))

    def proof(self, connection: int) -> bytes:
        """Return the 32 bytes that show a new data connection to be of this session."""
        return _expand(self.secret, b"nexthop 1 open" + _INFO.pack(connection, self.epoch))


class Sealer:
    """Seals the records of one direction of one connection."""

    def __init__(self, session: Session, direction: Direction, connection: int) -> None:
        self._aad = bytearray(session.session_id + bytes(frame.RECORD.size))
        self._at = len(session.session_id)
        self._direction, self._connection = direction, connection
        self._counter = 0
        self.rekey(session)

    def rekey(self, session: Session) -> None:
        """Seal with this epoch's key from now on; the peer has said that it can open it."""
        self._aead = AESGCM(session.key(self._direction, self._connection))
        self._epoch, self._first = session.epoch, self._counter

    @property
    def used(self) -> int:
        """Return how many records the present key has sealed."""
        return self._counter - self._first

    def seal(self, kind: int, plain: memoryview | bytes, record: memoryview) -> int:
        """Write the whole record for `plain`, of a `frame.Kind`, into `record`; return its length in bytes."""
        counter, aad = self._counter, self._aad
        if counter >= LAST_COUNTER:
            raise frame.LocalProtocolError("a key has sealed all that it may")
        length = len(plain) + frame.TAG
        frame.RECORD.pack_into(aad, self._at, frame.VERSION, kind, self._connection, self._epoch, counter, length)
        end = _HEADER + length
        record[:_HEADER] = aad[self._at :]
        self._aead.encrypt_into(_NONCE.pack(counter), plain, aad, record[_HEADER:end])
        self._counter = counter + 1
        return end


class Opener:
    """Opens the records of one direction of one connection, in the order in which they were sealed."""

    def __init__(self, session: Session, direction: Direction, connection: int) -> None:
        self._aeads: dict[int, AESGCM] = {}
        self._aad = bytearray(session.session_id + bytes(frame.RECORD.size))
        self._at = len(session.session_id)
        self._direction, self._connection = direction, connection
        self._counter = self._first = 0
        self._epoch = session.epoch
        self.install(session)

    def install(self, session: Session) -> None:
        """Be ready for records of this epoch, too; the first one that comes ends the epochs before it."""
        self._aeads[session.epoch] = AESGCM(session.key(self._direction, self._connection))
        for epoch in sorted(self._aeads)[:-_EPOCHS]:
            del self._aeads[epoch]

    @property
    def used(self) -> int:
        """Return how many records the present key has opened."""
        return self._counter - self._first

    def open(self, header: frame.Header, record: memoryview, plain: memoryview) -> int:
        """Open `record` (header included) into `plain`; return the length in bytes, or raise `NotAuthentic`.

        A stream keeps order, so a counter that is not the next one means a replay or a loss on a line that has neither.
        """
        _, connection, epoch, counter, sealed = header
        aead = self._aeads.get(epoch)
        if aead is None or connection != self._connection or counter != self._counter:
            raise NotAuthentic("a record out of its place")
        self._aad[self._at :] = record[:_HEADER]
        length = sealed - frame.TAG
        try:
            aead.decrypt_into(_NONCE.pack(counter), record[_HEADER : _HEADER + sealed], self._aad, plain[:length])
        except Exception as error:  # cryptography raises InvalidTag; anything else here is as good a reason to stop
            raise NotAuthentic("a record that the peer did not seal") from error
        if epoch != self._epoch:
            self._enter(epoch)
        self._counter = counter + 1
        return length

    def _enter(self, epoch: int) -> None:
        self._epoch, self._first = epoch, self._counter
        self._aeads = {known: aead for known, aead in self._aeads.items() if known >= epoch}


def _extract(salt: bytes, material: bytes) -> bytes:
    return hmac.digest(salt, material, hashlib.sha256)


def _expand(secret: bytes, info: bytes) -> bytes:
    """HKDF-Expand for one block, which is all that 32 bytes need (RFC 5869, section 2.3)."""
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)
