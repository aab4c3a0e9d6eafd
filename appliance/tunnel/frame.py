"""How bytes are cut into messages and records. Pure: bytes in, values out.

Two forms, both in network byte order:

control message (inside TLS)   u32 length, then that many bytes of JSON, one object with a "type"

record (on a data connection)  a 20-byte header, in clear but authenticated, then the sealed batch
    u8 version | u8 kind | u16 connection | u32 epoch | u64 counter | u32 length of what follows, tag included

preface (the first bytes of a data connection, in clear)
    "nhd1" | 8 bytes session id | u16 connection | 32 bytes proof that whoever opens it knows the session's secret

batch (inside a record)        packets, one behind the other, each
    u8 shape | u24 length | u16 segment size | the packet, from its IP header on
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

Message = dict[str, Any]

VERSION: Final = 1
TAG: Final = 16
"""Bytes that AES-GCM adds (RFC 5116, section 5.1)."""

RECORD: Final = struct.Struct("!BBHIQI")
PACKET: Final = struct.Struct("!IH")

PREFACE: Final = struct.Struct("!4s8sH32s")
PREFACE_MAGIC: Final = b"nhd1"
"""One port serves both: TLS begins with 0x16 (RFC 8446, section 5.1), a data connection with this."""

COPY: Final = 0x20
"""In the shape: before the packet come 8 bytes that tell copies of it apart from others (`copies`)."""

_COPY: Final = COPY << 24
TICKET: Final = struct.Struct("!II")

BATCH: Final = 1 << 16
"""Bytes that a batch of several packets holds at most."""

LARGEST_PACKET: Final = 65_535 + 40
"""An IPv6 packet counts its 40-byte header beside the 16-bit length (RFC 8200, section 3)."""

LARGEST_BATCH: Final = PACKET.size + TICKET.size + LARGEST_PACKET
"""A batch holds either several packets or one of any size."""

LARGEST_SEALED: Final = LARGEST_BATCH + TAG

BEFORE_AUTH: Final = 4 << 10
AFTER_AUTH: Final = 64 << 10


class LocalProtocolError(Exception):
    """We did what the protocol does not allow: a mistake in this program."""


class RemoteProtocolError(Exception):
    """The peer did what the protocol does not allow: end the connection."""


class Kind(IntEnum):
    """What a record carries."""

    DATA = 0
    PROBE = 1
    ECHO = 2
    FILLER = 3


class Header(NamedTuple):
    """A record's header, as read."""

    kind: int
    connection: int
    epoch: int
    counter: int
    length: int


_new = tuple.__new__  # a named tuple's own constructor takes longer than all the rest of reading


_LAST_KIND: Final = int(max(Kind))  # to name a member of an enumeration takes Python 3.11 as long as to read a header


def read_header(data: memoryview | bytes, offset: int = 0) -> Header:
    """Read a record's header; raise `RemoteProtocolError` when it cannot be one."""
    version, kind, connection, epoch, counter, length = RECORD.unpack_from(data, offset)
    if version != VERSION or kind > _LAST_KIND or not TAG <= length <= LARGEST_SEALED:
        raise RemoteProtocolError("not a record")
    return _new(Header, (kind, connection, epoch, counter, length))


def only(batch: memoryview) -> tuple[int, int, memoryview] | None:
    """Return what `packets` yields of a batch that holds one packet, and no copy; None of any other."""
    if len(batch) >= PACKET.size:
        word, segment = PACKET.unpack_from(batch)
        if word & 0xFFFFFF == len(batch) - PACKET.size and not word & _COPY:
            return word >> 24, segment, batch[PACKET.size :]
    return None


def packets(batch: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (shape, segment size, packet) of each packet in an opened batch; the packet borrows the batch's memory."""
    offset, end = 0, len(batch)
    while offset < end:
        if end - offset < PACKET.size:
            raise RemoteProtocolError("a batch ends inside a packet's prefix")
        word, segment = PACKET.unpack_from(batch, offset)
        offset += PACKET.size
        length = word & 0xFFFFFF
        if length > end - offset:
            raise RemoteProtocolError("a packet is longer than its batch")
        yield word >> 24, segment, batch[offset : offset + length]
        offset += length


def encode(message: Message) -> bytes:
    """Return a control message as bytes."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > AFTER_AUTH:
        raise LocalProtocolError("the control message is too long")
    return struct.pack("!I", len(body)) + body


class Decoder:
    """Cuts a byte stream into control messages. `limit` is raised once the peer is known."""

    def __init__(self, limit: int = BEFORE_AUTH) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes, return the messages that are whole; raise `RemoteProtocolError` on what is none."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4])
            if length > self.limit:
                raise RemoteProtocolError(f"a control message of {length} bytes; at most {self.limit} are taken here")
            if len(self._buffer) < 4 + length:
                break
            messages.append(_parse(bytes(self._buffer[4 : 4 + length])))
            del self._buffer[: 4 + length]
        return messages


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("a control message is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise RemoteProtocolError("a control message has no type")
    return message
