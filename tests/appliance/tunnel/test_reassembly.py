"""Whatever comes first, twice, forged or never: units come out whole, and memory is bounded."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, unit
from appliance.tunnel.keys import NotAuthentic
from appliance.tunnel.reassembly import Reassembly
from tests.appliance.tunnel.units import SESSION, TO_SERVER, Receiver, datagrams, spare


@given(st.lists(st.binary(max_size=9000), max_size=4), st.integers(300, 2000), st.randoms(use_true_random=False))
def test_units_come_out_whole_whatever_the_order_of_their_datagrams(plains, size, random):
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    everything = [datagram for plain in plains for datagram in datagrams(sealer, plain, size)]
    random.shuffle(everything)
    for datagram in everything:
        receiver.take(datagram)
    assert sorted(receiver.units) == sorted(plains)


@given(st.binary(min_size=1, max_size=40_000), st.integers(300, 2000), st.data())
def test_of_each_sum_one_part_may_be_lost_whatever_the_order(plain, size, data):
    parts, spares = spare(unit.Sealer(SESSION, TO_SERVER), plain, size)
    receiver = Receiver()
    lost = {data.draw(st.sampled_from(range(which, len(parts), len(spares)))) for which in range(len(spares))}
    there = [*(part for number, part in enumerate(parts) if number not in lost), *spares]
    for datagram in data.draw(st.permutations(there)):
        receiver.take(datagram)
    assert receiver.units == [plain]


def test_two_lost_parts_of_one_sum_are_too_many():
    parts, spares = spare(unit.Sealer(SESSION, TO_SERVER), bytes(9000), 1000)
    receiver = Receiver()
    for datagram in (*parts[1:2], *parts[3:], *spares):  # the first and the third are of one sum, of two
        receiver.take(datagram)
    assert not receiver.units
    receiver.take(parts[2])
    assert receiver.units == [bytes(9000)]


@given(st.integers(1, 40_000), st.integers(300, 1400), st.randoms(use_true_random=False))
def test_spare_parts_that_were_forged_before_the_true_ones_came_spoil_nothing(length, size, random):
    parts, spares = spare(unit.Sealer(SESSION, TO_SERVER), bytes(length), size)
    receiver, there = Receiver(), [part[: unit.OVERHEAD] + b"e" * (len(part) - unit.OVERHEAD) for part in spares]
    random.shuffle(parts)
    for datagram in (*there, *parts):
        with contextlib.suppress(NotAuthentic):
            receiver.take(datagram)
    assert receiver.units == [bytes(length)]


@given(st.sets(st.integers(0, 4)), st.integers(1, 3))
def test_parts_that_were_forged_before_the_true_ones_came_spoil_nothing(numbers, times):
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    parts = datagrams(sealer, bytes(6000))
    for time in range(times):
        for number in numbers:
            forged = parts[number][: unit.OVERHEAD] + bytes([time + 1]) * (len(parts[number]) - unit.OVERHEAD)
            with contextlib.suppress(NotAuthentic):
                receiver.take(forged)
    for part in parts:
        with contextlib.suppress(NotAuthentic):
            receiver.take(part)
    assert receiver.units == [bytes(6000)] or len(numbers) == len(parts)
    assert bool(receiver.reassembly.contradictions) is bool(numbers)


def test_a_unit_that_stays_forged_is_given_up():
    receiver, parts = Receiver(), datagrams(unit.Sealer(SESSION, TO_SERVER), bytes(3000))
    head = parts[0][: unit.OVERHEAD]
    refused = 0
    receiver.take(parts[1])
    receiver.take(parts[2])
    for number in range(50):
        try:
            receiver.take(head + bytes([number]) * (len(parts[0]) - unit.OVERHEAD))
        except NotAuthentic:
            refused += 1
    assert refused == Reassembly.TRIES
    assert receiver.reassembly.abandoned == 1


def test_parts_that_come_twice_and_say_the_same_are_no_forgery_however_they_are_joined():
    (parts, place), reassembly = sealed_parts(5000), Reassembly()
    assert reassembly.add(place, 3, parts[: 3 * place.size], 0.0) is None
    whole = reassembly.add(place._replace(number=2), 2, parts[2 * place.size :], 0.0)
    assert whole == parts
    assert reassembly.contradictions == 0


def sealed_parts(length: int) -> tuple[memoryview, unit.Place]:
    """Return all parts of a unit, one behind the other, and the place of the first."""
    cut = datagrams(unit.Sealer(SESSION, TO_SERVER), bytes(length))
    place = unit.read(cut[0], len(cut[0]) - unit.OVERHEAD)
    assert place is not None
    return memoryview(b"".join(each[unit.OVERHEAD :] for each in cut)), place


@given(st.binary(max_size=200))
def test_garbage_is_no_datagram_of_ours_or_waits_for_the_rest(data):
    Receiver().take(data) if len(data) >= unit.OVERHEAD else None
    assert unit.read(data, len(data) - unit.OVERHEAD) is None or data[0] == frame.VERSION


def test_reassembly_is_bounded_in_memory_and_in_time():
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    heads = [datagrams(sealer, bytes(3000))[0] for _ in range(10 * Reassembly.MOST)]
    for datagram in heads:
        receiver.take(datagram)
    assert receiver.reassembly.abandoned == len(heads) - Reassembly.MOST
    receiver.take(datagrams(sealer, bytes(3000))[0], now=Reassembly.PATIENCE)
    assert receiver.reassembly.abandoned == len(heads)
