from __future__ import annotations

from appliance.status import LinkStatus
from appliance.traffic import KEPT, Traffic


def link(tx: int, rx: int, rtt: float | None = 1.0, name: str = "hk") -> LinkStatus:
    return LinkStatus(name, f"tun-{name}", "up", rtt_ms=rtt, counters={"tx_bytes": tx, "rx_bytes": rx})


def test_a_rate_is_what_a_counter_grew_by() -> None:
    traffic = Traffic()
    traffic.take(100.0, [link(1000, 0)], {})
    assert traffic.all() == {"hk": ()}
    traffic.take(102.0, [link(2000, 500)], {"hk": 0.25})
    (sample,) = traffic.all()["hk"]
    assert (sample.at, sample.tx_bps, sample.rx_bps) == (102.0, 4000.0, 2000.0)
    assert (sample.rtt_ms, sample.loss) == (1.0, 0.25)


def test_a_gtun_that_was_started_anew_and_a_clock_that_was_set_back_make_no_nonsense() -> None:
    traffic = Traffic()
    traffic.take(100.0, [link(1000, 1000)], {})
    traffic.take(102.0, [link(10, 10)], {})
    traffic.take(90.0, [link(20, 20)], {})
    assert [(each.tx_bps, each.rx_bps) for each in traffic.all()["hk"]] == [(0.0, 0.0), (0.0, 0.0)]


def test_it_keeps_ten_minutes_and_forgets_links_that_are_no_more() -> None:
    traffic = Traffic()
    for number in range(KEPT + 100):
        traffic.take(2.0 * number, [link(number, 0), link(0, 0, name="sg")], {})
    assert {name: len(samples) for name, samples in traffic.all().items()} == {"hk": KEPT, "sg": KEPT}
    traffic.take(9999.0, [link(0, 0)], {})
    assert set(traffic.all()) == {"hk"}
