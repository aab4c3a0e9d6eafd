from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.backoff import CAP, Backoff


def test_the_first_try_is_made_at_once():
    assert Backoff(lambda: 0.99).failed() == 0


@given(st.floats(0, 1, exclude_max=True), st.integers(2, 500))
def test_no_wait_is_longer_than_the_cap_and_none_after_the_first_is_nothing(share, failures):
    backoff = Backoff(lambda: share)
    waits = [backoff.failed() for _ in range(failures)]
    assert all(0 < wait <= CAP for wait in waits[1:])
    assert waits == sorted(waits)


def test_success_forgets_the_failures():
    backoff = Backoff(lambda: 0.5)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    assert backoff.failed() == 0
