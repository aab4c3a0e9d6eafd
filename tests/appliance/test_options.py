from __future__ import annotations

import pytest

from appliance.options import AUTO, OFF, BadOption, WhenDown, mss_text, parse_mss, parse_target, parse_when_down


@pytest.mark.parametrize("text", ["icmp:10.244.1.20", "tcp:10.244.1.20:80", "tcp:[fd00::1]:80", "icmp:fd00::1"])
def test_a_target_has_one_spelling(text: str) -> None:
    assert str(parse_target(text)) == text


def test_no_target_is_none() -> None:
    assert parse_target("") is None


@pytest.mark.parametrize(
    "text",
    ["10.244.1.20", "tcp:10.244.1.20", "tcp:10.244.1.20:0", "tcp:10.244.1.20:65536", "udp:10.0.0.1:53", "icmp:x"],
)
def test_a_bad_target_says_what_to_write(text: str) -> None:
    with pytest.raises(BadOption, match="write icmp:ADDRESS or tcp:ADDRESS:PORT"):
        parse_target(text)


def test_an_mss_is_auto_off_or_bytes() -> None:
    assert [parse_mss(text) for text in ("auto", "off", "1300")] == [AUTO, OFF, 1300]
    assert [mss_text(mss) for mss in (AUTO, OFF, 1300)] == ["auto", "off", "1300"]


@pytest.mark.parametrize("text", ["", "0", "-1", "100", "70000", "1300.5", "AUTO", "1_300"])
def test_a_bad_mss_says_what_to_write(text: str) -> None:
    with pytest.raises(BadOption, match="write auto, off"):
        parse_mss(text)


def test_a_bad_policy_says_what_to_write() -> None:
    assert parse_when_down("withdraw") is WhenDown.WITHDRAW
    with pytest.raises(BadOption, match="write keep or withdraw"):
        parse_when_down("drop")
