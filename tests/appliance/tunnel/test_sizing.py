"""Loss makes units small, its absence large."""

import pytest

from appliance.tunnel import frame
from appliance.tunnel.sizing import Sizing


def test_loss_makes_units_small_at_once_and_its_absence_makes_them_grow():
    sizing = Sizing()
    sizing.smallest = 1400
    limits = []
    for report in range(1, 4):
        sizing.reported(1000 * report, 980 * report, 0.25 * report)
        limits.append(sizing.limit)
    assert limits == [frame.BATCH // 2, frame.BATCH // 16, 1400]
    assert sizing.loss == pytest.approx(0.02)
    for second in range(1, 10):
        sizing.reported(3000 + 1000 * second, 2940 + 1000 * second, 0.75 + second)
    assert sizing.limit == frame.BATCH


def test_a_burst_that_is_lost_once_or_a_little_loss_does_not_shrink_them_far():
    sizing = Sizing()
    sizing.reported(1000, 500, 0.0)
    sizing.reported(2000, 1500, 1.0)
    sizing.reported(3000, 2990, 2.0)
    sizing.reported(4000, 3980, 3.0)
    assert sizing.limit >= frame.BATCH // 4


def test_a_report_that_says_nothing_new_or_contradicts_changes_nothing():
    sizing = Sizing()
    sizing.reported(0, 0, 0.0)
    sizing.reported(10, 10, 0.0)
    sizing.reported(5, 5, 0.0)
    assert (sizing.limit, sizing.loss) == (frame.BATCH, 0.0)
