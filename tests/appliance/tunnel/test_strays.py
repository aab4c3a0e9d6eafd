"""Datagrams that reach gtund itself: who is woken for them, and what for."""

import asyncio
import socket

import pytest

from appliance.tunnel import frame, keys, unit
from appliance.tunnel.strays import Strays

SESSION = keys.Session.agree(b"sessions", bytes(32), bytes(32))
HOST = ("127.0.0.1", 0)


def datagrams(kind: frame.Kind, plain: bytes) -> list[bytes]:
    sealed = memoryview(bytearray(unit.LARGEST))
    prefix, length = unit.Sealer(SESSION, keys.Direction.TO_SERVER).seal(kind, plain, sealed)
    return [b"".join(pieces) for pieces in unit.Cuts(sealed, 1400).of(prefix, length, 1)]


def changed(datagram: bytes, at: int, value: int) -> bytes:
    return datagram[:at] + bytes([value]) + datagram[at + 1 :]


(PROBE,) = datagrams(frame.Kind.PROBE, b"12345678")
LENGTH = unit.PREFIX.size - 4
GARBAGE = {
    "empty": b"",
    "short": PROBE[: unit.OVERHEAD - 1],
    "another version": changed(PROBE, 0, 2),
    "no kind": changed(PROBE, 1, frame.Kind.ECHO + 1),
    "less than a tag": changed(PROBE, LENGTH + 3, frame.TAG - 1),
    "more than a unit": changed(PROBE, LENGTH, 1),
    "words": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n" * 3,
}


@pytest.fixture
def sockets():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:  # an address that nobody else has now
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(HOST)
        address = place.getsockname()
    strays = Strays(socket.AF_INET, address)
    with strays._sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        yield strays, sender


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_nobody_is_woken_for_garbage(sockets, garbage):
    strays, sender = sockets
    sender.send(garbage)
    sender.send(PROBE)
    assert strays._sock.recv(2048) == PROBE
    with pytest.raises(BlockingIOError):
        strays._sock.recv(2048)


@pytest.mark.parametrize("size", [1, 1000, 60_000])
def test_every_datagram_of_a_unit_gets_through(sockets, size):
    strays, sender = sockets
    for datagram in datagrams(frame.Kind.DATA, bytes(size)):
        sender.send(datagram)
        assert strays._sock.recv(2048) == datagram


def handed_on(sockets: tuple[Strays, socket.socket], sent: list[bytes]) -> list[bytes]:
    """Return the sessions of what was handed on, one for each datagram, where `SESSION` is all that is known."""
    (strays, sender), handed = sockets, list[bytes]()

    async def story() -> None:
        known = SESSION.session_id.__eq__
        with strays.watched(known, lambda session_id, _datagram, _address: handed.append(session_id)):
            for datagram in sent:
                sender.send(datagram)
            for _ in range(20):  # turns of the loop
                await asyncio.sleep(0)

    asyncio.run(story())
    return handed


def test_of_one_session_few_are_handed_on_in_a_second(sockets, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    assert handed_on(sockets, [PROBE] * 200) == [b"sessions"] * 50


def test_datagrams_of_no_session_take_nothing_from_those_of_one(sockets, monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    of_none = [PROBE[:4] + number.to_bytes(8) + PROBE[12:] for number in range(200)]
    assert handed_on(sockets, [*of_none, PROBE]) == [b"sessions"]
