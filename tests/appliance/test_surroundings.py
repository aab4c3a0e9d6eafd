from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

from appliance.intent import IntentStore
from appliance.kernel.state import Device
from appliance.links import Links
from appliance.model import Intent
from appliance.surroundings import gather_facts
from tests.appliance.fakes import ETH0, POD, VPC, make_links, tun


def test_the_guard_gets_what_everybody_knows(tmp_path: Path) -> None:
    make_links(tmp_path)
    store = IntentStore(tmp_path / "nexthop.db", clock=lambda: 1.0)
    store.put(Intent(POD, "hk"))

    async def devices() -> Mapping[str, Device]:
        return {"eth0": ETH0, "tun-hk": tun()}

    facts = asyncio.run(gather_facts(store, Links(tmp_path, tmp_path), devices, VPC))
    assert facts.vpc is VPC
    assert facts.tunnel_servers == {ip_address("203.0.113.10")}
    assert facts.tunnel_subnets == {ip_network("100.64.240.0/24")}
    assert facts.local_networks == {("eth0", ip_network("172.18.2.0/24"))}
    assert facts.intents == (Intent(POD, "hk", created_at=1.0),)
    assert facts.links == {"hk"}
    assert facts.unresolved == ()
