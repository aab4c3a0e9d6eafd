from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from api.client import Refused
from cloud.provider import EntryStatus, Observation, Owner, RouteEntry

from .conftest import VPC, Appliance

USED = replace(VPC, uses=(("vsw-hosts", "vtb-1"), ("vsw-appliance", "vtb-1")), kinds=(("vtb-1", "system"),))


def entry(cidr: str, owner: Owner, hop: str = "i-1", name: str = "") -> RouteEntry:
    return RouteEntry(ip_network(cidr), hop, "Instance", "vtb-1", "rte-1", owner, EntryStatus.AVAILABLE, name)


def test_each_entry_is_told_by_whose_it_is(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.96.0.0/16"})
    entries = (
        entry("172.18.1.0/24", Owner.SYSTEM, ""),
        entry("10.244.0.0/16", Owner.OURS),
        entry("10.245.0.0/16", Owner.OURS),
        entry("10.96.0.0/16", Owner.FOREIGN, "i-9", "by terraform"),
        entry("10.9.0.0/16", Owner.FOREIGN, "i-9"),
        entry("10.8.0.0/16", Owner.CHANGED, "i-9"),
    )
    joined.cloud.observation = Observation(USED, entries, at=1767225600.0)
    seen = joined.daemon.get("/v1/routes")
    assert seen["observed_at"] == 1767225600.0
    (table,) = seen["tables"]
    assert (table["id"], table["kind"], table["vswitches"]) == ("vtb-1", "system", ["vsw-hosts", "vsw-appliance"])
    assert [(each["cidr"], each["owner"]) for each in table["entries"]] == [
        ("10.8.0.0/16", "foreign"),
        ("10.9.0.0/16", "foreign"),
        ("10.96.0.0/16", "conflict"),
        ("10.244.0.0/16", "ours"),
        ("10.245.0.0/16", "stray"),
        ("172.18.1.0/24", "system"),
    ]
    assert "by terraform" in table["entries"][2]["note"]
    assert seen["quota"]["vtb-1"]["others"] == 3


def test_before_the_cloud_has_answered_there_is_nothing_to_show(joined: Appliance) -> None:
    joined.cloud.observation = None
    assert joined.daemon.get("/v1/routes") == {"observed_at": None, "tables": [], "quota": {}}


def test_an_address_is_explained(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    found = joined.daemon.get("/v1/explain/10.244.1.20")
    assert found["cidr"] == "10.244.0.0/16"
    assert [step["layer"] for step in found["steps"]] == ["intent", "cloud", "kernel", "link"]
    assert joined.daemon.get("/v1/explain/2001:db8::1")["cidr"] is None


@pytest.mark.parametrize("address", ["10.244.0.0%2F16", "nonsense", "10.1", "fe80::1%25eth0", "1" * 500, "%00"])
def test_what_is_no_address_is_refused(refusing: Appliance, address: str) -> None:
    with pytest.raises(Refused) as caught:
        refusing.daemon.get(f"/v1/explain/{address}")
    assert caught.value.code in {"bad-address", "not-found"}


def test_traffic_is_there_from_the_start(joined: Appliance) -> None:
    assert joined.daemon.get("/v1/traffic") == {"interval_s": 2.0, "links": {}}
