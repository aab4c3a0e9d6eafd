from __future__ import annotations

import pytest

from tests.bench import table
from tests.bench.claims import Claim, Judged, Outcome
from tests.bench.metrics import Section, derive
from tests.bench.stats import Ratio
from tests.bench.verdict import Validity


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (3.7123, "3.71"), (1234.0, "1234"), (86_432.0, "86.4k"), (0.0512, "0.0512")],
)
def test_a_figure_has_three_digits(value: float | None, text: str) -> None:
    assert table.figure(value) == text


def test_a_ratio_of_one_round_has_no_range() -> None:
    assert table.spread(Ratio(2.0, 2.0, 2.0, 1)) == "2x"
    assert table.spread(Ratio(12.1, 11.0, 13.3, 5)) == "12.1x (11-13.3)"
    assert table.spread(None) == "-"


def a_section() -> Section:
    section = Section("fast", "no delay")
    section.add("none", {"tcp1_up": 20.0, "rtt": 30.0}, ())
    section.add("stream", {"tcp1_up": 4.0, "rtt": 330.0}, ())
    section.add("wireguard-go", {"tcp1_up": 0.25}, ("tcp1_up", "rtt"))
    derive(section, "none")
    return section


def test_a_row_leads_with_the_fraction_of_no_tunnel_then_each_peer_with_its_version() -> None:
    lines = table.section(a_section(), {"wireguard-go": "0.0.20220316"}).splitlines()
    assert lines[0] == "no delay"
    assert lines[2].split("  ")[0] == ""
    columns = [cell.strip() for cell in lines[2].split("  ") if cell.strip()]
    assert columns == [
        "mode",
        "/ no tunnel",
        "/ wireguard-go 0.0.20220316",
        "ours",
        "no tunnel",
        "wireguard-go",
        "unit",
    ]
    cells = [cell.strip() for cell in lines[4].split("  ") if cell.strip()]
    assert cells == ["TCP, one flow, host to pod", "stream", "0.2x", "16x", "4", "20", "0.25", "Gbit/s"]


def test_the_added_round_trip_is_over_no_tunnel_in_the_same_round() -> None:
    section = a_section()
    assert section.of("stream", "rtt_added") == [300.0]
    assert section.of("wireguard-go", "rtt_added") == [None]
    assert section.of("none", "rtt_added") == []


def test_a_failed_reading_keeps_its_place_among_the_rounds() -> None:
    section = Section("fast", "")
    section.add("stream", {}, ("tcp1_up",))
    section.add("stream", {"tcp1_up": 4.0}, ("tcp1_up",))
    assert section.of("stream", "tcp1_up") == [None, 4.0]


def test_only_peers_make_a_table_too() -> None:
    section = Section("fast", "t")
    section.add("none", {"tcp1_up": 20.0}, ())
    section.add("openvpn", {"tcp1_up": 0.3}, ())
    assert "TCP, one flow, host to pod" in table.section(section, {})


def test_a_section_without_readings_is_shown_as_empty() -> None:
    assert table.section(Section("wan-1", "the line"), {}).startswith("the line\n")


def test_a_missed_claim_is_told() -> None:
    claim = Claim("added RTT", "fast", "rtt_added", None, 1.3, 1, at_most=True)
    text = table.claims([Judged(claim, "stream", 1.7, 5, Outcome.MISSED)])
    assert text.splitlines()[2].split() == ["added", "RTT", "stream", "1.7", "<=", "1.3", "<=", "1", "5", "MISSED"]


def test_an_invalid_run_says_so_and_why() -> None:
    text = table.validity(Validity(("it was busy",), judged=True), ["OpenVPN: gone\nwith a trace"])
    assert text.splitlines() == [
        "THIS RUN IS INVALID; do not quote it:",
        "  - it was busy",
        "Not measured:",
        "  - OpenVPN: gone with a trace",
    ]
    assert table.validity(Validity((), judged=True), []) == "This run is valid."
    assert table.validity(Validity((), judged=False), []).startswith("Do not quote")
