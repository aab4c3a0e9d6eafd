from functools import partial

import pytest

from appliance.tunnel.frame import PREFACE_MAGIC
from appliance.tunnel.gate import (
    PLACES,
    PLACES_PER_SOURCE,
    Breath,
    Gate,
    Pace,
    Place,
    greeting_length,
    plausible,
)


def test_one_source_gets_only_its_share_and_others_still_come_in():
    gate = Gate()
    assert [gate.enter("a") for _ in range(PLACES_PER_SOURCE + 3)].count(None) == 3
    assert gate.enter("b")
    assert gate.turned_away == 3


def test_where_all_places_are_taken_the_oldest_gives_way():
    gate, cut = Gate(), list[int]()
    for number in range(PLACES + 50):
        place = gate.enter(str(number))
        assert place is not None
        place.cut = partial(cut.append, number)
    assert cut == list(range(50))
    assert len(gate._inside) == PLACES


def test_a_place_that_was_left_is_free_again_and_only_once():
    gate = Gate()
    for _ in range(10 * PLACES):
        place = gate.enter("a")
        assert isinstance(place, Place)
        gate.leave(place)
        gate.leave(place)
    assert not gate._by_source


def test_whoever_has_a_network_of_ipv6_is_one_source():
    gate = Gate()
    places = [gate.enter(f"2001:db8:0:1::{number:x}") for number in range(1, PLACES_PER_SOURCE + 2)]
    assert places.count(None) == 1
    assert gate.enter("2001:db8:0:2::1")


def test_the_longer_somebody_is_always_waiting_the_longer_is_the_breath_and_one_alone_waits_for_a_short_one():
    breath, now, taken = Breath(), 100.0, []
    for _ in range(10):
        taken.append(breath.take(now))
        now += 2 * taken[-1]  # later than it asked for
        breath.over(now)
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (Breath.SHORTEST, Breath.LONGEST)
    assert breath.take(now + 1) == Breath.SHORTEST


def test_handshakes_come_at_a_pace_and_a_few_at_once_after_a_quiet_time():
    pace, done = Pace(), 0
    for tick in range(1000):
        while not pace.take(100 + tick / 100):
            done += 1
    assert done == pytest.approx(Pace.AT_ONCE + 10 * Pace.RATE, abs=5)
    assert 0 < pace.take(109.99) <= 1 / Pace.RATE


@pytest.mark.parametrize(("first", "whether"), [(b"", True), (b"\x16", True), (b"\x16\x03\x01", True), (b"n", True)])
def test_what_may_begin_a_connection_is_let_on(first, whether):
    assert plausible(first, PREFACE_MAGIC) is whether


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1", b"SSH-2.0", b"\x16\x02", b"nhd2", b"\x00" * 8])
def test_garbage_is_told_by_its_first_bytes(first):
    assert not plausible(first, PREFACE_MAGIC)


def test_a_greeting_is_as_long_as_its_record():
    assert greeting_length(b"\x16\x03\x01\x02\x00\x01") == 5 + 512


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x16\x03\x01\x02\x00",
        b"\x16\x03\x01\x02\x00\x02",
        b"\x17\x03\x03\x02\x00\x01",
        b"\x16\x03\x01\xff\x00\x01",
    ],
    ids=["nothing", "short", "not a hello", "not a handshake", "longer than any"],
)
def test_what_is_no_greeting_is_not_waited_for(header):
    assert greeting_length(header) == 0
