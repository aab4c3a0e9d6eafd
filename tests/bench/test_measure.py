from __future__ import annotations

import pytest

from tests.bench import plan
from tests.bench.local import turned
from tests.bench.measure import arrived, connected, pinged
from tests.lab.space import Failed

PING = """64 bytes from 10.244.1.20: icmp_seq=1 ttl=61 time=0.5 ms
64 bytes from 10.244.1.20: icmp_seq=2 ttl=61 time=0.1 ms
64 bytes from 10.244.1.20: icmp_seq=4 ttl=61 time=0.3 ms

4 packets transmitted, 3 received, 25% packet loss, time 30ms
"""


def test_a_few_lost_pings_leave_a_median() -> None:
    assert pinged(PING) == 0.3


def test_pings_that_mostly_get_lost_are_no_measurement() -> None:
    with pytest.raises(Failed):
        pinged("time=0.5 ms\n4 packets transmitted, 1 received")
    with pytest.raises(Failed):
        pinged("")


def test_what_a_bulk_flow_tells_is_read() -> None:
    assert arrived('{"marks": [[0.1, 5], [0.2, 9]]}') == [(0.1, 5), (0.2, 9)]
    with pytest.raises(Failed):
        arrived("")


def test_connect_times_have_a_median() -> None:
    assert connected('{"ms": [1, 9, 2]}') == 2


def test_another_contender_begins_each_round() -> None:
    order = ["a", "b", "c"]
    assert [list(turned(order, number)) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


@pytest.mark.parametrize("chosen", [plan.FULL, plan.QUICK])
def test_the_late_window_follows_the_early_one(chosen: plan.Plan) -> None:
    assert chosen.wan.early[1] <= chosen.wan.late[0] < chosen.wan.late[1]


def test_the_full_run_has_the_rounds_that_are_claimed() -> None:
    assert plan.FULL.fast.rounds >= 5
    assert plan.FULL.plain.rounds >= 5
    assert plan.FULL.wan.rounds >= 3
    assert plan.QUICK.fast.rounds >= 3
