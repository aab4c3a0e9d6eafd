from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.meddling import OFTEN, QUIET, WINDOW, Meddling
from appliance.status import Repeated

times = st.lists(st.floats(0, 4 * WINDOW), max_size=40).map(sorted)


def mended(at: list[float]) -> Meddling:
    found = Meddling()
    for each in at:
        found.note("sysctl", "net/ipv4/ip_forward", each)
        found.note("route", f"10.{int(each) % 250}.0.0/16", each)
    return found


@given(times)
def test_what_is_told_was_mended_often_and_just_now(at: list[float]) -> None:
    now = 4 * WINDOW
    lately = [each for each in at if each > now - WINDOW]
    told = [each for each in mended(at).often(now) if each.kind == "sysctl"]
    if len(lately) >= OFTEN and lately[-1] > now - QUIET:
        assert told == [Repeated("sysctl", "net/ipv4/ip_forward", len(lately))]
    else:
        assert told == []


def test_it_is_over_soon_after_the_last_repair() -> None:
    at = [float(second) for second in range(OFTEN)]
    assert mended(at).often(at[-1])
    assert not mended(at).often(at[-1] + QUIET)


def test_many_things_once_are_nobodys_doing() -> None:
    found = Meddling()
    for number in range(200):
        found.note("route", f"10.{number}.0.0/16", 1.0)
    assert found.often(1.0) == ()
