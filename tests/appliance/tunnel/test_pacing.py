from itertools import pairwise

import pytest

from appliance.tunnel.pacing import Pacing

FAST, SHORT, LONG, EVERY = 100e6, 0.001, 0.05, 0.25


def heard(pacing: Pacing, rate: float, share: float, rtt: float, now: float) -> None:
    pacing.reported(int(rate * EVERY), share, EVERY, rtt, now)


def congested() -> Pacing:
    pacing = Pacing()
    heard(pacing, FAST, 1, SHORT, 1.0)
    heard(pacing, FAST, 0.8, LONG, 1.25)
    return pacing


def test_without_congestion_there_is_no_limit():
    pacing = Pacing()
    for step in range(9):
        heard(pacing, FAST, 1, SHORT, step * EVERY)
        pacing.sent(10_000_000)
    assert pacing.rate is None
    assert pacing.wait(9.0) == 0


@pytest.mark.parametrize(("share", "rtt"), [(0.8, SHORT), (1, LONG)])
def test_loss_alone_or_delay_alone_is_no_congestion_of_ours(share, rtt):
    pacing = Pacing()
    heard(pacing, FAST, 1, SHORT, 1.0)
    heard(pacing, FAST, share, rtt, 1.25)
    assert pacing.rate is None


def test_with_both_the_rate_follows_what_arrived():
    pacing = congested()
    assert pacing.congested
    assert pacing.rate is not None
    assert 0.5 * FAST < pacing.rate < 0.8 * FAST


def test_the_rate_grows_again_until_it_is_no_limit():
    pacing = congested()
    for step in range(20):
        heard(pacing, FAST / 4, 1, SHORT, 2 + step * EVERY)
    assert pacing.rate is None


def test_it_grows_slowly_around_the_rate_that_was_too_much_and_fast_beyond():
    pacing = congested()
    rates = []
    for step in range(16):
        assert pacing.rate is not None
        rates.append(pacing.rate)
        heard(pacing, pacing.rate, 1, SHORT, 2 + step * EVERY)
    steps = [after / before for before, after in pairwise(rates)]
    assert steps[0] == pytest.approx(1.03)
    assert steps == sorted(steps)
    assert steps[-1] == pytest.approx(1.2)


def test_after_nothing_at_all_arrived_it_grows_again():
    pacing = Pacing()
    heard(pacing, FAST, 1, SHORT, 1.0)
    heard(pacing, FAST, 0, LONG, 1.25)
    before = pacing.rate
    heard(pacing, FAST, 1, SHORT, 1.5)
    assert before is not None
    assert pacing.rate is None or pacing.rate > before


def test_a_slow_line_is_never_held_back():
    pacing = Pacing()
    heard(pacing, 1e6, 1, SHORT, 1.0)
    for step in range(50):
        heard(pacing, 1e6, 0.5, LONG, 2 + step * EVERY)
    assert pacing.rate is None or pacing.rate >= 12.5e6


def test_what_is_sent_over_a_second_is_the_rate_in_short_bursts():
    pacing = congested()
    assert pacing.rate is not None
    now, sent, unit, longest = 1.25, 0, 65_536, 0
    burst = 0
    while now < 2.25:
        if wait := pacing.wait(now):
            now, longest, burst = now + wait, max(longest, burst), 0
            continue
        pacing.sent(unit)
        sent, burst = sent + unit, burst + unit
    assert sent == pytest.approx(pacing.rate, rel=0.05)
    assert longest <= 0.002 * pacing.rate + 2 * unit
