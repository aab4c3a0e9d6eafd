"""Foreign rules that stop forwarding are named; our own and harmless ones are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from appliance.kernel.obstacles import obstacles

if TYPE_CHECKING:
    from .conftest import Space

pytestmark = pytest.mark.lab

HARMLESS = "table inet a { chain f { type filter hook forward priority 0; policy accept; ip daddr 1.2.3.4 drop; }; }"
FINDINGS = {
    "ip filter FORWARD has policy drop": (
        "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
    ),
    "inet firewalld fwd_chain ends with reject": (
        "table inet firewalld { chain fwd_chain { type filter hook forward priority 10; ct state established accept; "
        "reject with icmpx type admin-prohibited; }; }"
    ),
}


@pytest.mark.parametrize("firewall_name", ["iptables", "nftables"])
@pytest.mark.parametrize("finding", FINDINGS)
def test_what_stops_forwarding_is_named(space: Space, firewall_name: str, finding: str) -> None:
    space.sh(f"nft '{HARMLESS}'")
    with space.entered():
        assert obstacles(firewall_name) == ()
        space.sh(f"nft '{FINDINGS[finding]}'")
        (text,) = obstacles(firewall_name)
    assert finding in text
    assert "Accept traffic" in text
