from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.limits import Buckets


def test_a_burst_is_taken_and_then_the_rate() -> None:
    buckets = Buckets(10.0, 3)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 0.0) == 0.1
    assert buckets.take("b", 0.0) == 0.0  # others are not kept waiting
    assert buckets.take("a", 0.11) == 0.0
    assert buckets.take("a", 0.11) > 0.0


@given(st.lists(st.floats(0, 2), max_size=200))
def test_nobody_gets_more_than_burst_and_rate(pauses: list[float]) -> None:
    buckets, now, taken = Buckets(5.0, 4), 0.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("a", now) == 0.0
    assert taken <= 4 + 5 * now + 1e-6


def test_it_forgets_rather_than_grows() -> None:
    buckets = Buckets(1.0, 1)
    for number in range(10_000):
        buckets.take(str(number), 0.0)
    assert len(buckets._level) <= 4096
    assert buckets.take("9999", 0.0) > 0.0
