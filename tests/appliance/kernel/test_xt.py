"""The bytes of a rule: what is stamped on is what is read off, and what the kernel fills in does not count."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel import xt
from appliance.kernel.rules import Action, Chain, Line

INDEXES = {"a": 1, "b": 2, "c": 3}
_SIZES = {4: (112, 88), 6: (168, 140)}


def _template(version: int, target: bytes = b"REJECT", match: bytes = b"comment") -> bytes:
    size, offsets = _SIZES[version]
    head = bytearray(size)
    struct.pack_into("=HH", head, offsets, size + 64, size + 64 + 40)
    comment = struct.pack("=H29sB32s", 64, match, 0, b"nexthop")
    return bytes(head) + comment + struct.pack("=H29sB8s", 40, target, 0, b"\x01")


devices = st.text("abc-0", min_size=1, max_size=15).map(str) | st.just("")


@settings(deadline=None)
@given(st.sampled_from([4, 6]), devices, devices, st.booleans(), st.booleans(), st.booleans())
def test_rules_that_differ_in_anything_differ_in_their_form(
    version: int, incoming: str, outgoing: str, inverted: bool, out: bool, back: bool
) -> None:
    sign = "!" if inverted and incoming and outgoing else ""
    line = Line(Chain.FORWARD, Action.REJECT, sign + incoming, sign + outgoing, "a" * out, source="b" * back)
    seen = xt.form(xt.stamp(_template(version), line, version, INDEXES), version, b"REJECT")
    names = [name for name, _, _ in seen.matches]
    assert names == [b"comment", *[b"set"] * (out + back)]
    for other in (replace(line, incoming="other"), replace(line, outgoing="!other"), replace(line, source="c")):
        assert xt.form(xt.stamp(_template(version), other, version, INDEXES), version, b"REJECT") != seen


def test_a_set_is_looked_up_by_its_number_and_the_side_that_is_meant() -> None:
    line = Line(Chain.FORWARD, Action.REJECT, destination="a", source="b")
    matches = xt.form(xt.stamp(_template(4), line, 4, INDEXES), 4, b"REJECT").matches
    assert [parameters[:4] for _, _, parameters in matches[1:]] == [b"\x01\0\x01\0", b"\x02\0\x01\x02"]


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_leaves_behind_a_name_does_not_count(version: int) -> None:
    one, other = _template(version), _template(version, match=b"comment\0rubbish")
    assert one != other
    assert xt.form(one, version, b"REJECT") == xt.form(other, version, b"REJECT")
    assert xt.form(one, version, b"REJECT") != xt.form(one[:-8] + b"\x02" + one[-7:], version, b"REJECT")


def test_a_device_name_matches_whole_names_only() -> None:
    raw = xt.stamp(_template(4), Line(Chain.FORWARD, Action.REJECT, "tun-h"), 4, {})
    assert raw[16:32] == b"tun-h".ljust(16, b"\0")
    assert raw[48:64] == (b"\xff" * 6).ljust(16, b"\0")
