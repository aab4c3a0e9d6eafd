import struct

import pytest

from appliance.tunnel.liveness import DEAD_AFTER, EVERY, Liveness


def probe(liveness: Liveness, now: float) -> bytes:
    payload = liveness.due(now)
    assert payload is not None
    return payload


def test_it_is_alive_only_once_a_probe_came_back():
    liveness = Liveness(100.0)
    sent = probe(liveness, 100.0)
    assert not liveness.alive
    liveness.echoed(sent, 100.2)
    assert liveness.alive


def test_the_round_trip_is_measured_from_the_second_probe_on_since_the_first_opened_the_connection():
    liveness = Liveness(0.0)
    liveness.echoed(probe(liveness, 0.0), 0.9)
    assert liveness.rtt is None
    liveness.echoed(probe(liveness, 0.9), 1.0)
    assert liveness.rtt == pytest.approx(0.1)


def test_probes_go_out_once_a_second():
    liveness = Liveness(0.0)
    assert liveness.due(0.0)
    assert liveness.due(EVERY - 0.01) is None
    assert liveness.due(EVERY)


def test_silence_for_three_seconds_is_death_and_an_echo_is_not():
    liveness = Liveness(0.0)
    sent = probe(liveness, 0.0)
    assert not liveness.dead(DEAD_AFTER - 0.01)
    assert liveness.dead(DEAD_AFTER)
    liveness.echoed(sent, DEAD_AFTER - 0.01)
    assert not liveness.dead(DEAD_AFTER + 1)


def test_a_loop_that_sleeps_until_the_deadline_misses_nothing():
    liveness, now = Liveness(0.0), 0.0
    while not liveness.dead(now):
        liveness.due(now)
        assert liveness.next_deadline() > now
        now = liveness.next_deadline()
    assert now == DEAD_AFTER


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), -1e300, 11.0])
def test_a_time_that_cannot_be_ours_is_no_echo(stamp):
    liveness = Liveness(0.0)
    for _ in range(2):
        liveness.echoed(struct.pack("!d", stamp), 10.0)
    assert (liveness.alive, liveness.rtt) == (False, None)
