"""The bytes of a rule: what is stamped on is what is read off, and what the kernel fills in does not count."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.kernel import xt
from appliance.kernel.firewall import Action, Chain, Line

_SIZES = {4: (112, 88), 6: (168, 140)}


def _template(version: int, target: bytes = b"REJECT", match: bytes = b"comment") -> bytes:
    size, offsets = _SIZES[version]
    head = bytearray(size)
    struct.pack_into("=HH", head, offsets, size + 64, size + 64 + 40)
    comment = struct.pack("=H29sB32s", 64, match, 0, b"nexthop")
    return bytes(head) + comment + struct.pack("=H29sB8s", 40, target, 0, b"\x01")


devices = st.text("abc-0", min_size=1, max_size=15).map(str) | st.just("")


@settings(deadline=None)
@given(st.sampled_from([4, 6]), devices, devices, st.booleans(), st.integers(0, 2**128 - 1), st.integers(0, 128))
def test_what_is_stamped_on_is_read_off(
    version: int, incoming: str, outgoing: str, inverted: bool, address: int, length: int
) -> None:
    bits = 32 if version == 4 else 128
    network = ip_network((address % 2**bits, length % (bits + 1)), strict=False) if version == 4 else None
    if network is None:
        network = ip_network((address % 2**bits | 1 << 127, length % (bits + 1)), strict=False)
    sign = "!" if inverted and incoming and outgoing else ""
    line = Line(Chain.FORWARD, Action.REJECT, sign + incoming, sign + outgoing, network)
    raw = xt.stamp(_template(version), line, version)
    nothing = ip_network((0, 0)) if version == 4 else ip_network("::/0")
    seen = xt.ends(xt.form(raw, version, b"REJECT").header, version)
    assert seen == (sign + incoming, sign + outgoing, network, nothing)


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_leaves_behind_a_name_does_not_count(version: int) -> None:
    one, other = _template(version), _template(version, match=b"comment\0rubbish")
    assert one != other
    assert xt.form(one, version, b"REJECT") == xt.form(other, version, b"REJECT")
    assert xt.form(one, version, b"REJECT") != xt.form(one[:-8] + b"\x02" + one[-7:], version, b"REJECT")


def test_a_device_name_matches_whole_names_only() -> None:
    raw = xt.stamp(_template(4), Line(Chain.FORWARD, Action.REJECT, "tun-h"), 4)
    assert raw[16:32] == b"tun-h".ljust(16, b"\0")
    assert raw[48:64] == (b"\xff" * 6).ljust(16, b"\0")


@settings(deadline=None)
@given(st.binary(min_size=84, max_size=84))
def test_a_garbled_header_is_an_error_of_the_named_kind_or_reads(header: bytes) -> None:
    with contextlib.suppress(ValueError):
        xt.ends(header, 4)
