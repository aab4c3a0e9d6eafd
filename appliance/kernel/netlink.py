"""Netlink where a library is too slow: messages and attributes as bytes, one socket, the kernel's answers.

A thousand CIDRs are two thousand routes. pyroute2 takes a tenth of a millisecond to decode each, and they are read
several times a pass; what is here takes a fiftieth of that (docs/decisions). Layouts of uapi/linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

REQUEST: Final = 0x1
ACK: Final = 0x4
EXCL: Final = 0x200
CREATE: Final = 0x400
REPLACE: Final = 0x100
DUMP: Final = 0x300
NETFILTER: Final = 12  # NETLINK_NETFILTER
_SOL_NETLINK: Final = 270
_GET_STRICT_CHK: Final = 12
_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF  # NLA_TYPE_MASK
_DUMP_INTR: Final = 0x10
_ERROR: Final = 2
_DONE: Final = 3
_HEADER: Final = Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = Struct("=HH")  # length, type
_ERRNO: Final = Struct("=i")
_TIMEOUT: Final = 10.0  # seconds
_MOST: Final = 1 << 17  # bytes; a message of a dump is 32 KiB at most


class Message(NamedTuple):
    """One request. `flags`: beside REQUEST."""

    kind: int
    flags: int
    body: bytes


class Interrupted(Exception):
    """The table changed while it was read: read it again."""


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, parts: Iterable[bytes]) -> bytes:
    """Return one attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(parts))


def attributes(raw: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, value) of what follows from `at` on."""
    end = len(raw)
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(raw, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND, raw[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


class Talk:
    """A socket in the network namespace of the thread that opens it. Calls block, as a rule for microseconds.

    All methods raise OSError with the kernel's errno.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(_TIMEOUT)
        self._socket.bind((0, 0))
        self._sequence = 0
        if family == socket.NETLINK_ROUTE:  # so that it is the kernel that filters a dump
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def do(self, *messages: Message) -> None:
        """Send them as one datagram, and wait until the kernel has acknowledged the last that asks for it."""
        last = self._send(messages)
        while True:
            for kind, _, sequence, body in self._receive():
                if kind != _ERROR:
                    continue
                _raise(body)
                if sequence == last:
                    return

    def ask(self, message: Message) -> bytes:
        """Return the body of the one answer."""
        sequence = self._send([message])
        while True:
            for kind, _, answered, body in self._receive():
                if answered == sequence:
                    if kind == _ERROR:
                        _raise(body)
                    return body

    def dump(self, message: Message) -> list[bytes]:
        """Return the bodies of all answers; raise `Interrupted`."""
        sequence = self._send([message._replace(flags=message.flags | DUMP)])
        found: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, answered, body in self._receive():
                if answered != sequence:
                    continue
                interrupted = interrupted or bool(flags & _DUMP_INTR)
                if kind in {_DONE, _ERROR}:
                    _raise(body)
                    if interrupted:
                        raise Interrupted
                    return found
                found.append(body)

    def _send(self, messages: Iterable[Message]) -> int:
        """Send, and return the number of the last that asks for an acknowledgement, or of the last."""
        packed, last, asked = [], 0, 0
        for message in messages:
            self._sequence += 1
            last = self._sequence
            asked = last if message.flags & ACK else asked
            flags = message.flags | REQUEST
            packed.append(_HEADER.pack(_HEADER.size + len(message.body), message.kind, flags, last, 0))
            packed.append(message.body + bytes(-len(message.body) % 4))
        self._socket.send(b"".join(packed))
        return asked or last

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            raw = self._socket.recv(_MOST)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"the kernel did not answer within {_TIMEOUT:g} s") from None
        at = 0
        while at + _HEADER.size <= len(raw):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(raw, at)
            yield kind, flags, sequence, raw[at + _HEADER.size : at + length]
            at += (max(length, _HEADER.size) + 3) & ~3


def _raise(body: bytes) -> None:
    if len(body) >= _ERRNO.size and (code := -_ERRNO.unpack_from(body)[0]) > 0:
        raise OSError(code, os.strerror(code))
