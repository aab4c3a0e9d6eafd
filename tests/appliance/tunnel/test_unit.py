"""Units: what they say of themselves, sealed and opened once each."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, keys, unit
from appliance.tunnel.keys import NotAuthentic
from tests.appliance.tunnel.units import SESSION, TO_SERVER, Receiver, datagrams


@given(st.integers(1, 60_000), st.integers(300, 9000), st.integers(1, 64))
def test_a_unit_is_spread_evenly_over_its_sends(length, size, most):
    sealed = memoryview(bytes(length))
    sends = unit.Cuts(sealed, size).of(bytes(unit.PREFIX.size), length, most)
    counts = [len(pieces) // 2 for pieces in sends]
    assert sum(counts) == -(-length // size)
    assert max(counts) <= most
    assert b"".join(bytes(part) for pieces in sends for part in pieces[1::2]) == sealed


def test_a_datagram_that_comes_twice_or_a_unit_that_is_replayed_is_taken_once():
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    parts = datagrams(sealer, bytes(3000))
    for datagram in (parts[0], *parts):
        receiver.take(datagram)
    assert len(receiver.units) == 1
    *before, last = parts
    for datagram in before:
        receiver.take(datagram)
    with pytest.raises(NotAuthentic):
        receiver.take(last)


@given(st.data())
def test_a_unit_with_one_forged_bit_is_refused_and_the_next_one_taken(data):
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    parts = [bytearray(datagram) for datagram in datagrams(sealer, bytes(5000))]
    forged = data.draw(st.sampled_from(parts))
    bit = data.draw(st.integers(0, len(forged) * 8 - 1))
    forged[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(NotAuthentic):
        for part in parts:
            receiver.take(bytes(part))
    assert not receiver.units
    for datagram in datagrams(sealer, b"next"):
        receiver.take(datagram)
    assert receiver.units == [b"next"]


def test_a_run_of_one_units_datagrams_is_told_from_any_other():
    sealer = unit.Sealer(SESSION, TO_SERVER)
    one, other = datagrams(sealer, bytes(5000)), datagrams(sealer, bytes(5000))
    place = unit.read(one[1], 1400)
    assert place is not None

    def heads(*of: bytes) -> bytes:
        return b"".join(datagram[: unit.OVERHEAD] for datagram in of)

    carried = len(one) * 1400 - 1400 - (len(one) * 1400 - (5000 + frame.TAG))
    assert unit.run(heads(*one[1:]), place, carried)
    assert not unit.run(heads(*one[1:]), place, carried + 1)  # the last one is longer than its place
    assert not unit.run(heads(*one[1:]), place, carried - 1)
    assert not unit.run(heads(one[1], one[3]), place, 2 * 1400)
    assert not unit.run(heads(one[1], other[2]), place, 2 * 1400)
    assert not unit.run(heads(*one[1:], other[0]), place, carried + 1400)


@given(st.lists(st.integers(0, 9000), max_size=200))
def test_a_replay_window_takes_each_counter_once_and_none_that_is_far_behind(counters):
    window = unit.ReplayWindow()
    taken: set[int] = set()
    for counter in counters:
        newest = max(taken, default=-1)
        assert window.fresh(counter) is (counter not in taken and newest - counter < window.WIDTH)
        if window.fresh(counter):
            window.take(counter)
            taken.add(counter)
    assert (window.newest, window.taken) == (max(taken, default=-1), len(taken))


def test_no_connection_shares_a_key_with_the_datagram_channel():
    assert SESSION.key(TO_SERVER, keys.DATAGRAMS) not in {SESSION.key(TO_SERVER, number) for number in range(64)}
    assert keys.LAST_COUNTER < 1 << 64


# ---- epochs ---------------------------------------------------------------------------------------------------------

NEXT = SESSION.renew(b"C" * 32, b"S" * 32)


def test_units_of_two_epochs_overtake_each_other_and_none_is_lost_or_taken_twice():
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    old = datagrams(sealer, b"old") + datagrams(sealer, b"older keys, later")
    sealer.rekey(NEXT)
    new = datagrams(sealer, b"new")
    with pytest.raises(NotAuthentic):
        receiver.take(new[0])  # its key is not there yet; what is refused can come again
    receiver.opener.install(NEXT)
    for datagram in (new[0], *old):
        receiver.take(datagram)
    assert receiver.units == [b"new", b"old", b"older keys, later"]
    for datagram in (new[0], *old):
        with pytest.raises(NotAuthentic):
            receiver.take(datagram)


def test_past_keys_are_forgotten_when_asked_but_never_the_one_in_use():
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    late = datagrams(sealer, b"late")[0]
    receiver.opener.install(NEXT)
    receiver.opener.forget()  # the peer has not used the new one
    receiver.take(datagrams(sealer, b"still the old key")[0])
    sealer.rekey(NEXT)
    receiver.take(datagrams(sealer, b"new")[0])
    receiver.opener.forget()
    with pytest.raises(NotAuthentic):
        receiver.take(late)
    assert receiver.units == [b"still the old key", b"new"]


def test_the_keys_that_are_kept_are_few_however_often_they_are_made_anew():
    receiver, session = Receiver(), SESSION
    for _ in range(50):
        session = session.renew(b"C" * 32, b"S" * 32)
        receiver.opener.install(session)
    assert len(receiver.opener._aeads) == unit.EPOCHS
    sealer = unit.Sealer(session, TO_SERVER)
    receiver.take(datagrams(sealer, b"newest")[0])
    assert receiver.units == [b"newest"]


def test_a_counter_that_no_session_comes_to_is_refused():
    header = bytearray(datagrams(unit.Sealer(SESSION, TO_SERVER), b"x")[0])
    for counter, there in ((keys.LAST_COUNTER - 1, True), (keys.LAST_COUNTER, False), ((1 << 64) - 1, False)):
        header[12:20] = counter.to_bytes(8)
        assert (unit.read(memoryview(header), len(header) - unit.OVERHEAD) is not None) is there
