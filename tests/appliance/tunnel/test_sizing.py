"""Loss makes units small, its absence large."""

import pytest

from appliance.tunnel import frame
from appliance.tunnel.sizing import Sizing


def test_loss_makes_units_small_at_once_and_its_absence_makes_them_grow():
    sizing = Sizing()
    sizing.smallest = 1400
    sizing.reported(1000, 980, 0.0)
    sizing.reported(2000, 1960, 0.25)
    assert sizing.limit == 1400
    assert sizing.loss == pytest.approx(0.02)
    for second in range(1, 10):
        sizing.reported(2000 + 1000 * second, 1960 + 1000 * second, 0.25 + second)
    assert sizing.limit == frame.BATCH


def test_a_report_that_says_nothing_new_or_contradicts_changes_nothing():
    sizing = Sizing()
    sizing.reported(0, 0, 0.0)
    sizing.reported(10, 10, 0.0)
    sizing.reported(5, 5, 0.0)
    assert (sizing.limit, sizing.loss) == (frame.BATCH, 0.0)
