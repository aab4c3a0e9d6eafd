import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, keys, unit
from appliance.tunnel.keys import Direction, NotAuthentic, Session

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
        self.reassembly = unit.Reassembly()
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


@given(st.lists(st.binary(max_size=9000), max_size=4), st.integers(300, 2000), st.randoms(use_true_random=False))
def test_units_come_out_whole_whatever_the_order_of_their_datagrams(plains, size, random):
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    everything = [datagram for plain in plains for datagram in datagrams(sealer, plain, size)]
    random.shuffle(everything)
    for datagram in everything:
        receiver.take(datagram)
    assert sorted(receiver.units) == sorted(plains)


@given(st.integers(1, 60_000), st.integers(300, 9000), st.integers(1, 64))
def test_a_unit_is_spread_evenly_over_its_sends(length, size, most):
    sealed = memoryview(bytes(length))
    sends = unit.Cuts(sealed, size).of(bytes(unit.PREFIX.size), length, most)
    counts = [len(pieces) // 2 for pieces in sends]
    assert sum(counts) == -(-length // size)
    assert max(counts) <= most
    assert b"".join(bytes(part) for pieces in sends for part in pieces[1::2]) == sealed


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
    assert refused == unit.Reassembly.TRIES
    assert receiver.reassembly.abandoned == 1


@given(st.binary(max_size=200))
def test_garbage_is_no_datagram_of_ours_or_waits_for_the_rest(data):
    Receiver().take(data) if len(data) >= unit.OVERHEAD else None
    assert unit.read(data, len(data) - unit.OVERHEAD) is None or data[0] == frame.VERSION


def test_reassembly_is_bounded_in_memory_and_in_time():
    sealer, receiver = unit.Sealer(SESSION, TO_SERVER), Receiver()
    heads = [datagrams(sealer, bytes(3000))[0] for _ in range(10 * unit.Reassembly.MOST)]
    for datagram in heads:
        receiver.take(datagram)
    assert receiver.reassembly.abandoned == len(heads) - unit.Reassembly.MOST
    receiver.take(datagrams(sealer, bytes(3000))[0], now=unit.Reassembly.PATIENCE)
    assert receiver.reassembly.abandoned == len(heads)


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


def test_loss_makes_units_small_at_once_and_its_absence_makes_them_grow():
    sizing = unit.Sizing()
    sizing.smallest = 1400
    sizing.reported(1000, 980, 0.0)
    sizing.reported(2000, 1960, 0.25)
    assert sizing.limit == 1400
    assert sizing.loss == pytest.approx(0.02)
    for second in range(1, 10):
        sizing.reported(2000 + 1000 * second, 1960 + 1000 * second, 0.25 + second)
    assert sizing.limit == frame.BATCH


def test_a_report_that_says_nothing_new_or_contradicts_changes_nothing():
    sizing = unit.Sizing()
    sizing.reported(0, 0, 0.0)
    sizing.reported(10, 10, 0.0)
    sizing.reported(5, 5, 0.0)
    assert (sizing.limit, sizing.loss) == (frame.BATCH, 0.0)


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
