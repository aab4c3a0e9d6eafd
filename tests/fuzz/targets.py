"""What strangers and clients can make us read, each as a function of bytes that fails when we do not hold what we say.

A target reads its input from a `Tape` as a story: a genuine record, a changed one, nonsense, one from before. It lets
pass the errors that the reader documents, and nothing else; what it asserts holds for every input. `tests.fuzz` runs
them with inputs that coverage leads to, and `test_targets` with hypothesis's and with whatever ever failed.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from appliance.tunnel import (
    allow,
    buffers,
    datagram,
    flow,
    frame,
    keys,
    messages,
    segment,
    session,
    token,
    unit,
    virtio,
)
from appliance.tunnel.keys import Direction
from appliance.tunnel.legacy import message as legacy
from appliance.tunnel.liveness import Liveness
from appliance.tunnel.reassembly import Reassembly

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION: Final = keys.Session.agree(b"sessions", b"c" * 32, b"s" * 32)
SOURCES: Final = allow.Sources([ip_network("100.64.240.50/32"), ip_network("fd00::/64"), ip_network("10.1.0.0/16")])
_UDP: Final = (17, 103)  # SOL_UDP, UDP_SEGMENT
_TO_SERVER: Final = Direction.TO_SERVER


class Tape:
    """Bytes that are read as choices; past its end it reads as zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def over(self) -> bool:
        """Return whether all of it was read."""
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """Return up to `count` bytes."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def number(self, size: int = 1) -> int:
        """Return an unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"))

    def changed(self, data: bytes) -> bytes:
        """Return `data` with a few bytes of it changed, and perhaps cut short."""
        out = bytearray(data)
        for _ in range(1 + self.number() % 4):
            if out:
                out[self.number(2) % len(out)] ^= self.number()
        if self.number() & 1:
            del out[self.number(2) % (len(out) + 1) :]
        return bytes(out)


def record(data: bytes) -> None:
    """Records on a data connection: nothing is opened but what was sealed, in the order in which it was."""
    tape = Tape(data)
    sealer, opener = keys.Sealer(SESSION, _TO_SERVER, 3), keys.Opener(SESSION, _TO_SERVER, 3)
    memory, plain = memoryview(bytearray(2048)), memoryview(bytearray(frame.LARGEST_SEALED))
    line, sealed = b"", []
    for _ in range(1 + tape.number() % 6):
        text = tape.take(tape.number())
        length = sealer.seal(frame.Kind(tape.number() % 3), text, memory)
        sealed.append(text)
        whole = bytes(memory[:length])
        line += (whole, tape.changed(whole), tape.take(40) + whole, line[-length:])[tape.number() % 4]
    start, opened = 0, []
    with contextlib.suppress(frame.RemoteProtocolError, keys.NotAuthentic):
        while len(line) - start >= frame.RECORD.size:
            header = frame.read_header(memoryview(line), start)
            stop = start + frame.RECORD.size + header.length
            if stop > len(line):
                break
            opened.append(bytes(plain[: opener.open(header, memoryview(line)[start:stop], plain)]))
            start = stop
    assert opened == sealed[: len(opened)]


def batch(data: bytes) -> None:
    """An opened batch from a client that means harm: what reaches the kernel is sound, and from where it may be."""
    header = bytearray(virtio.PLAIN)
    with contextlib.suppress(frame.RemoteProtocolError):
        for shape, size, packet in frame.packets(memoryview(data)):
            _packet(shape, size, packet, header)


def packet(data: bytes) -> None:
    """One packet with a shape and a segment size, and a virtio header as a kernel would give it."""
    tape = Tape(data)
    shape, size, header = tape.number(), tape.number(2), tape.take(virtio.HEADER.size)
    if len(header) == virtio.HEADER.size:
        with contextlib.suppress(virtio.BadPacket):
            virtio.shape(header)
    _packet(shape, size, memoryview(data)[13:], bytearray(virtio.PLAIN))


def _packet(shape: int, size: int, packet: memoryview, header: bytearray) -> None:
    try:
        virtio.rebuild(shape, size, packet, header)
    except virtio.BadPacket:
        return
    flags, gso, headers, segment_size, start, offset = virtio.HEADER.unpack(header)
    if flags:
        assert start + offset + 2 <= len(packet)
    if gso:
        assert start < headers < len(packet)
        assert 0 < segment_size < len(packet) - headers
    SOURCES.permit(packet)
    flow.classify(packet)
    with contextlib.suppress(virtio.BadPacket):
        pieces = [bytes(piece) for _, _, piece in segment.split(shape, size, packet)]
        assert len(packet) <= sum(map(len, pieces)) <= len(packet) + (len(pieces) - 1) * len(packet)
        for piece in pieces:
            virtio.locate(memoryview(piece))


def reassembly(data: bytes) -> None:
    """Datagrams of units, some genuine: each unit comes out at most once, as it was sealed, and memory is bounded."""
    tape = Tape(data)
    sealer, opener = unit.Sealer(SESSION, _TO_SERVER), unit.Opener(SESSION, _TO_SERVER)
    whole, now = Reassembly(), 0.0
    plain = memoryview(bytearray(unit.LARGEST))
    parts: list[bytes] = []
    sealed: list[bytes] = []
    opened: list[bytes] = []
    while not tape.over:
        what = tape.number()
        now += (what >> 4) / 20
        if what % 4 == 0:
            sealed.append(bytes([len(sealed) & 0xFF]) * (1 + tape.number(2) % 3000))
            parts += _datagrams(sealer, sealed[-1], 256 + tape.number())
            continue
        source = parts[tape.number() % len(parts)] if parts else b""
        came = (source, source, tape.changed(source), tape.take(300))[what % 4]
        place = unit.read(came, len(came) - unit.OVERHEAD)
        if place is None or place.session_id != SESSION.session_id:
            continue
        found = whole.add(place, 1, memoryview(came)[unit.OVERHEAD :], now)
        assert len(whole._partials) <= whole.MOST
        assert len(whole._partials) + len(whole._free) <= whole.MOST + 1
        if found is not None:
            with contextlib.suppress(keys.NotAuthentic):
                opened.append(bytes(plain[: opener.open(place, found, plain)]))
                whole.done(place)
    assert not Counter(opened) - Counter(sealed)


def _datagrams(sealer: unit.Sealer, plain: bytes, size: int, kind: frame.Kind = frame.Kind.DATA) -> list[bytes]:
    memory = memoryview(bytearray(len(plain) + frame.TAG))
    prefix, length = sealer.seal(kind, plain, memory)
    out = []
    cuts = unit.Cuts(memory, size)
    for pieces in (*cuts.of(prefix, length, 44), *cuts.spares(prefix, length, 44)):
        out += [bytes(head) + bytes(part) for head, part in zip(pieces[::2], pieces[1::2], strict=True)]
    return out


class _Line:
    """Two UDP sockets, connected to each other, that serve for all inputs."""

    def __init__(self) -> None:
        self.ours, self.theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.ours, self.theirs):
            sock.bind(("127.0.0.1", 0))
        self.ours.connect(self.theirs.getsockname())
        self.theirs.connect(self.ours.getsockname())
        self.ours.settimeout(0)
        self.theirs.settimeout(0)
        self.pool = buffers.Pool(4)

    def close(self) -> None:
        """End both."""
        self.ours.close()
        self.theirs.close()


@functools.cache
def line() -> _Line:
    """Return the one line."""
    return _Line()


def channel(data: bytes) -> None:
    """A datagram channel's socket, with datagrams that the kernel joined: what comes out was sealed, each once."""
    tape, between = Tape(data), line()
    counters: Counter[str] = Counter()
    ours = datagram.Datagram(SESSION, Direction.TO_CLIENT, between.pool, Liveness(0.0), counters)
    ours.attach(between.ours.dup())
    sealer = unit.Sealer(SESSION, _TO_SERVER)
    sealed: list[bytes] = []
    for _ in range(8):
        if tape.over:
            break
        size = 256 + tape.number(2) % 1200
        sealed.append(bytes([len(sealed)]) * (tape.number(2) % 8000))
        kind = frame.Kind(tape.number() % 3)
        came = b"".join(_datagrams(sealer, sealed[-1], size, kind))
        if (what := tape.number() % 4) > 1:
            came = tape.changed(came)
        step = size + unit.OVERHEAD if what != 3 else 1 + tape.number(2) % 1400
        for start in range(0, len(came), 40 * step):
            piece = came[start : start + 40 * step]
            options = [(*_UDP, struct.pack("=H", step))] if len(piece) > step else []
            with contextlib.suppress(OSError):
                between.theirs.sendmsg([piece], options)
    opened = []
    while select.select([between.ours], [], [], 0)[0]:
        for kind_, plain in ours.receive():
            opened.append(bytes(plain))
            if kind_ == frame.Kind.ECHO:
                ours.echoed(bytes(plain), 1.0)
            elif kind_ == frame.Kind.DATA:
                batch(bytes(plain))
    ours.close()
    assert not Counter(opened) - Counter(sealed)


def control(data: bytes) -> None:
    """A control channel, from either end: an event, the documented error, and never more memory than the limit."""
    tape = Tape(data)
    role = session.Role.SERVER if tape.number() & 1 else session.Role.CLIENT
    conversation = session.Conversation(role)
    if role is session.Role.CLIENT:
        conversation.hello(messages.Hello(messages.VERSIONS, "a", b"k" * 32, b"", b"r" * 32))
    framed = tape.number() & 1
    with contextlib.suppress(frame.RemoteProtocolError):
        while not tape.over:
            piece = tape.take(1 + tape.number(2))
            if framed:
                piece = struct.pack("!I", len(piece)) + piece
            for event in conversation.receive(piece):
                if isinstance(event, messages.Hello):
                    assert 1 <= event.connections <= messages.MOST_CONNECTIONS
                    messages.choose_version(event.versions)
                elif isinstance(event, messages.Welcome):
                    assert 576 <= event.mtu <= 65_535
            assert len(conversation._decoder._buffer) <= frame.AFTER_AUTH + 4


def old(data: bytes) -> None:
    """The plaintext protocol of gtun 2.0.2: messages are the same however the line cuts them."""
    tape = Tape(data)
    first, rest = tape.number(2), data[2:]
    found = []
    for pieces in ((rest,), (rest[:first], rest[first:])):
        decoder, messages = legacy.Decoder(), []
        with contextlib.suppress(frame.RemoteProtocolError):
            for piece in pieces:
                messages += [(command, bytes(payload)) for command, payload in decoder.receive(piece)]
            found.append(messages)
            assert len(decoder._rest) <= legacy.BEFORE_AUTH + 2
        for command, payload in messages:
            for read in (legacy.read_authorize, legacy.read_answer):
                with contextlib.suppress(frame.RemoteProtocolError):
                    read(command, memoryview(payload))
    assert len(found) < 2 or found[0] == found[1]


def join(data: bytes) -> None:
    """A join token that somebody pasted."""
    with contextlib.suppress(token.BadToken):
        read = token.decode(data.decode("utf-8", "replace"))
        assert token.decode(token.encode(read)) == read


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "record": record,
    "batch": batch,
    "packet": packet,
    "reassembly": reassembly,
    "channel": channel,
    "control": control,
    "legacy": old,
    "token": join,
}
