from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.legacy.heartbeat import EVERY, MISSED, Heartbeat


def test_one_goes_at_once_and_then_one_every_three_seconds():
    heartbeat = Heartbeat(100.0)
    sent = []
    for tick in range(100):
        now = 100.0 + tick / 10
        heartbeat.heard()
        if heartbeat.due(now):
            sent.append(now)
    assert sent == [100.0, 103.0, 106.0, 109.0]


def test_three_without_anything_heard_are_the_end():
    heartbeat = Heartbeat(0.0)
    for number in range(MISSED):
        assert not heartbeat.dead(number * EVERY)
        assert heartbeat.due(number * EVERY)
    assert not heartbeat.dead(MISSED * EVERY - 0.1)
    assert heartbeat.dead(MISSED * EVERY)


def test_a_lost_answer_on_a_busy_line_is_not_the_end():
    heartbeat = Heartbeat(0.0)
    for number in range(100):
        heartbeat.heard()
        assert not heartbeat.dead(number * EVERY)
        heartbeat.due(number * EVERY)


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["due", "heard", "answered"])), max_size=60))
def test_only_silence_kills_and_the_next_deadline_never_passes_unseen(script):
    heartbeat, now, silent_since = Heartbeat(0.0), 0.0, 0.0
    for pause, what in script:
        now += pause
        if heartbeat.dead(now):
            assert now - silent_since >= MISSED * EVERY - EVERY
            assert heartbeat.next_deadline() <= now
        if what == "due":
            heartbeat.due(now)
            assert heartbeat.next_deadline() > now
        else:
            heartbeat.heard()
            silent_since = now
            if what == "answered":
                heartbeat.answered(now)
    assert heartbeat.rtt is None or heartbeat.rtt >= 0


def test_the_round_trip_is_from_a_heartbeat_to_its_answer_and_strays_do_not_count():
    heartbeat = Heartbeat(0.0)
    heartbeat.answered(0.0)
    assert heartbeat.rtt is None
    heartbeat.due(0.0)
    heartbeat.answered(0.25)
    heartbeat.answered(2.0)
    assert heartbeat.rtt == 0.25
