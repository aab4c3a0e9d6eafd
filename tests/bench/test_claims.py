from __future__ import annotations

import pytest

from tests.bench.claims import CLAIMS, Claim, Outcome, judge, outcome
from tests.bench.metrics import METRICS, Section

AT_LEAST = Claim("", "fast", "tcp1_up", ("wireguard-go", "tcp1_up"), 12, 20)
AT_MOST = Claim("", "fast", "rtt_added", ("wireguard-go", "rtt_added"), 1.3, 1, at_most=True)


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        (AT_LEAST, 11.9, Outcome.MISSED),
        (AT_LEAST, 12.0, Outcome.FLOOR),
        (AT_LEAST, 20.0, Outcome.GOAL),
        (AT_MOST, 1.31, Outcome.MISSED),
        (AT_MOST, 1.3, Outcome.FLOOR),
        (AT_MOST, 1.0, Outcome.GOAL),
    ],
)
def test_a_bound_itself_is_good_enough(claim: Claim, value: float, expected: Outcome) -> None:
    assert outcome(claim, value) is expected


def test_a_claim_is_judged_by_ratios_of_the_same_round() -> None:
    section = Section("fast", "")
    section.readings = {
        "stream": {"tcp1_up": [3.0, 6.0, 1.5]},
        "wireguard-go": {"tcp1_up": [0.2, 0.4, 0.1]},
    }
    (judged,) = judge({"fast": section}, [AT_LEAST])
    assert judged.value == pytest.approx(15)
    assert (judged.mode, judged.count, judged.outcome) == ("stream", 3, Outcome.FLOOR)


def test_eight_flows_are_compared_with_the_same_modes_one() -> None:
    section = Section("fast", "")
    section.readings = {"stream": {"tcp1_up": [4.0], "tcp8_up": [2.0]}}
    (judged,) = judge({"fast": section}, [Claim("", "fast", "tcp8_up", ("", "tcp1_up"), 0.9, 1)])
    assert (judged.value, judged.outcome) == (0.5, Outcome.MISSED)


def test_a_fixed_bound_needs_nobody_else() -> None:
    section = Section("wan-1", "")
    section.readings = {"stream": {"early": [5.0, 30.0, 25.0]}}
    (judged,) = judge({"wan-1": section}, [Claim("", "wan-1", "early", None, 5, 20)])
    assert (judged.value, judged.outcome) == (25.0, Outcome.GOAL)


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge({}) == ()
    section = Section("fast", "")
    section.readings = {"stream": {"tcp1_up": [None]}, "wireguard-go": {"tcp1_up": [1.0]}}
    assert judge({"fast": section}, [AT_LEAST]) == ()


def test_a_claim_about_another_kind_of_channel_is_not_made_of_this_mode() -> None:
    section = Section("fast", "")
    section.readings = {"stream": {"tcp1_up": [1.0]}, "wireguard-go": {"tcp1_up": [1.0]}}
    datagram = Claim("", "fast", "tcp1_up", ("wireguard-go", "tcp1_up"), 6, 12, modes=("datagram",))
    assert judge({"fast": section}, [datagram]) == ()


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_speaks_of_metrics_that_there_are(claim: Claim) -> None:
    assert claim.metric in METRICS
    assert claim.other is None or claim.other[1] in METRICS
    sign = -1 if claim.at_most else 1
    assert sign * claim.goal >= sign * claim.floor
