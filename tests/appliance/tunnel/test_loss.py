from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.loss import WINDOW, Loss


def test_nothing_sent_is_nothing_lost():
    assert Loss().ratio == 0.0


def test_loss_is_that_of_the_last_seconds_only():
    loss = Loss()
    for second in range(1, 11):
        loss.reported(100 * second, 80 * second, float(second))
    assert round(loss.ratio, 2) == 0.2
    for second in range(11, 20):
        loss.reported(100 * second, 800 + 100 * (second - 10), float(second))
    assert loss.ratio == 0.0


def test_a_report_that_was_overtaken_changes_nothing():
    loss = Loss()
    loss.reported(100, 90, 1.0)
    loss.reported(50, 50, 1.1)
    assert round(loss.ratio, 2) == 0.1


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 3 * WINDOW)), max_size=50))
def test_whatever_a_peer_says_the_share_is_one_and_the_memory_bounded(reports):
    loss, now = Loss(), 0.0
    for sent, taken, after in reports:
        now += after
        loss.reported(sent, taken, now)
        assert 0.0 <= loss.ratio <= 1.0
        kept = [at for at, _, _ in loss._reports]
        assert all(at > kept[-1] - WINDOW for at in kept[1:-1])
