"""Datagrams over the loopback, which hands on joined what was sent joined, and by itself what was not."""

import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import arrivals, udp, unit
from appliance.tunnel.arrivals import Arrivals

from . import units

PART = 1400
LIMIT = 5


@pytest.fixture(scope="module")
def line():
    """Return the two ends of a line, the second as the datagram channel has it."""
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        udp.prepare(far)
        yield near, far


def apart(arrival):
    """Return an arrival as (place, part) of each datagram, as each would have arrived alone."""
    place, count, parts = arrival
    if place is None:
        return [(None, None)]
    cut = [bytes(parts[start : start + place.size]) for start in range(0, len(parts), place.size)]
    assert len(cut) == count
    return [(place._replace(number=place.number + at), part) for at, part in enumerate(cut)]


def read(taking, far, datagrams):
    """Return the arrivals until so many datagrams have come."""
    came: list[arrivals.Arrival] = []
    while sum(count for _, count, _ in came) < datagrams:
        assert select.select([far], [], [], LIMIT)[0], f"only {came} came"
        came += [(place, count, memoryview(bytes(parts))) for place, count, parts in taking.read(far)]
    return came


def alone(datagram):
    place, _, part = arrivals.alone(memoryview(datagram))
    return (place, bytes(part)) if place is not None else (None, None)


def send(near, datagrams, *, joined):
    if not joined:
        for datagram in datagrams:
            near.send(datagram)
        return
    for start in range(0, len(datagrams), 40):
        some = datagrams[start : start + 40]
        near.sendmsg([b"".join(some)], udp.cut_into(len(some[0])) if len(some) > 1 else [])


def accustomed(line):
    """Return what has seen nothing but datagrams that came by themselves."""
    taking, sealer = Arrivals(PART), unit.Sealer(units.SESSION, units.TO_SERVER)
    for _ in range(10):
        send(line[0], units.datagrams(sealer, b"small"), joined=False)
        read(taking, line[1], 1)
    return taking, sealer


@pytest.mark.parametrize("length", [PART - 16, 2 * PART - 16, 20_000, 64_000])
def test_a_unit_whose_datagrams_come_one_by_one_is_one_piece_of_memory(line, length):
    taking, sealer = accustomed(line)
    datagrams = units.datagrams(sealer, bytes(length), PART)
    send(line[0], datagrams, joined=False)
    [(place, count, parts)] = read(taking, line[1], len(datagrams))
    assert (place.number, count, len(parts)) == (0, len(datagrams), length + 16)


def test_who_expects_no_more_reads_no_more(line):
    taking, sealer = accustomed(line)
    datagrams = units.datagrams(sealer, bytes(20_000), PART)
    send(line[0], datagrams, joined=False)
    for number in range(len(datagrams)):
        [(place, count, _)] = taking.read(line[1], calm=True)
        assert (place.number, count) == (number, 1)


@pytest.mark.parametrize("size", [100, 216, 400])
def test_after_small_datagrams_that_were_joined_large_ones_find_room(line, size):
    taking, sealer = Arrivals(PART), unit.Sealer(units.SESSION, units.TO_SERVER)
    small = [each for _ in range(10) for each in units.datagrams(sealer, bytes(size))]
    large = units.datagrams(sealer, bytes(60_000), PART)
    for sent in (small, large[:43]):
        send(line[0], sent, joined=True)
        came = read(taking, line[1], len(sent))
        assert [each for arrival in came for each in apart(arrival)] == [alone(each) for each in sent]


SENDS = st.one_of(
    st.tuples(st.just("unit"), st.integers(1, 60_000), st.sampled_from([PART, 1200, 1432]), st.booleans()),
    st.tuples(st.just("stray"), st.integers(0, 3000), st.just(0), st.just(False)),
)


@given(st.lists(SENDS, min_size=1, max_size=12), st.booleans())
def test_each_datagram_arrives_as_it_would_alone_and_in_order_however_they_are_sent(line, sends, used_to_single_ones):
    taking, sealer = accustomed(line) if used_to_single_ones else (Arrivals(PART), accustomed(line)[1])
    expected: list[object] = []
    for kind, length, size, joined in sends:
        datagrams = units.datagrams(sealer, bytes(length), size) if kind == "unit" else [bytes(length)]
        send(line[0], datagrams, joined=joined)
        expected += map(alone, datagrams)
    came = read(taking, line[1], len(expected))
    assert [each for arrival in came for each in apart(arrival)] == expected
