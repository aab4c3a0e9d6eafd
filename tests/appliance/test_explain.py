from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from appliance.explain import Explanation, explain
from appliance.model import Intent
from appliance.status import CidrStatus, CloudStatus, FirewallStatus, Layer, LayerState, LinkStatus, Problem, Status
from cloud.provider import EntryStatus, Observation, Owner, RouteEntry
from tests.appliance import fakes
from tests.appliance.fakes import POD

VPC = replace(fakes.VPC, tables=fakes.VPC.tables[:1])
OK = Layer(LayerState.OK, "fine")
READY = CidrStatus(Intent(POD, "hk"), OK, OK)
STATUS = Status(
    links=(LinkStatus("hk", "tun-hk", "up", rtt_ms=115.2),),
    cidrs=(READY,),
    firewall=FirewallStatus("iptables"),
    cloud=CloudStatus("aliyun", "vpc-1"),
)
TARGET = str(POD[20])


def entry(cidr: str, hop: str, owner: Owner = Owner.OURS) -> RouteEntry:
    return RouteEntry(ip_network(cidr), hop, "Instance", VPC.tables[0], "rte-1", owner, EntryStatus.AVAILABLE)


OURS = entry(str(POD), VPC.instance_id)


def ask(address: str = TARGET, status: Status = STATUS, *entries: RouteEntry) -> Explanation:
    return explain(ip_address(address), status, Observation(VPC, entries or (OURS,)))


def bad(found: Explanation) -> list[str]:
    assert all(step.ok or step.next_step or step.layer == "cloud" for step in found.steps)
    return [step.layer for step in found.steps if not step.ok]


def test_a_packet_that_gets_through_is_followed_all_the_way() -> None:
    found = ask()
    assert [step.layer for step in found.steps] == ["intent", "cloud", "kernel", "link"]
    assert bad(found) == []
    assert (found.cidr, found.next_hop) == (str(POD), VPC.instance_id)
    assert found.answer == f"A host of the VPC reaches {TARGET} through this machine and link hk."


def test_the_first_layer_that_stops_it_is_the_answer() -> None:
    down = replace(STATUS, links=(LinkStatus("hk", "tun-hk", "down", "denied", "the server refuses this key"),))
    assert bad(ask(TARGET, down)) == ["link"]
    assert "refuses this key" in ask(TARGET, down).answer
    off = replace(STATUS, cidrs=(replace(READY, kernel=Layer(LayerState.ERROR, "ip_forward is off")),))
    assert bad(ask(TARGET, off)) == ["kernel"]
    silent = replace(STATUS, cidrs=(replace(READY, path=Layer(LayerState.ERROR, "no answer", "no-path")),))
    assert bad(ask(TARGET, silent)) == ["path"]
    lost = replace(STATUS, links=())
    assert bad(ask(TARGET, lost)) == ["link"]


@pytest.mark.parametrize("hop", ["i-other", ""])
def test_a_more_specific_entry_of_somebody_else_wins(hop: str) -> None:
    narrow = entry(f"{TARGET}/32", hop, Owner.FOREIGN)
    found = ask(TARGET, STATUS, OURS, narrow)
    assert bad(found) == ["cloud"]
    assert found.next_hop == hop
    assert f"{TARGET}/32" in found.answer


def test_an_address_that_nobody_asked_for_goes_its_own_way() -> None:
    found = ask("203.0.113.7", STATUS, OURS, entry("0.0.0.0/0", "ngw-1", Owner.FOREIGN))
    assert found.cidr is None
    assert found.next_hop == "ngw-1"
    assert "none of ours" in found.answer
    assert ask("2001:db8::1").next_hop == ""


def test_the_most_specific_of_ours_counts() -> None:
    inner = ip_network((int(POD.network_address), POD.prefixlen + 8))
    two = replace(STATUS, cidrs=(READY, replace(READY, intent=Intent(inner, "sg"))))
    assert explain(inner[1], two, None).cidr == str(inner)


def test_without_a_cloud_it_says_so() -> None:
    assert "has not answered yet" in explain(ip_address(TARGET), STATUS, None).answer
    failing = replace(STATUS, cloud=replace(STATUS.cloud, error=Problem("cloud-denied", "cloud: no", "mend it")))
    assert "cloud: no" in explain(ip_address(TARGET), failing, None).answer
    none = replace(STATUS, cloud=CloudStatus("none"))
    assert "no cloud is configured" in explain(ip_address(TARGET), none, None).answer
