from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.model import Intent, Phase
from appliance.status import (
    CidrStatus,
    CloudStatus,
    FirewallStatus,
    Layer,
    LayerState,
    LinkStatus,
    Problem,
    Status,
    Verdict,
    summarise,
)
from tests.appliance.fakes import POD, SERVICE

UP = LinkStatus("hk", "tun-hk", "up")
OK = Layer(LayerState.OK, "fine")
READY = CidrStatus(Intent(POD, "hk"), OK, OK)
CLOUD = CloudStatus("aliyun", "vpc-1", "i-1", ("vtb-1",))
IPTABLES = FirewallStatus("iptables")


def status(
    *cidrs: CidrStatus, links: tuple[LinkStatus, ...] = (UP,), cloud: CloudStatus = CLOUD, **more: str
) -> Status:
    firewall = FirewallStatus("nftables", "iptables cannot clamp") if more.pop("fallback", "") else IPTABLES
    return summarise(
        links=links,
        cidrs=cidrs,
        firewall=firewall,
        cloud=cloud,
        kernel_problem=more.get("kernel"),
        store_problem=more.get("store"),
    )


def test_all_well() -> None:
    found = status(READY)
    assert found.verdict is Verdict.OK
    assert found.summary == "OK: 1 of 1 CIDRs ready, 1 of 1 links up"
    assert found.problems == ()


def test_a_fresh_appliance_is_well_and_says_what_to_do() -> None:
    found = status(links=())
    assert found.verdict is Verdict.OK
    assert "nexthop link join" in found.summary


@pytest.mark.parametrize("code", ["pin-mismatch", "denied", "unreachable", "not-running", "of-tomorrow"])
def test_the_first_line_says_why_the_link_is_down(code: str) -> None:
    found = status(READY, links=(replace(UP, state="down", code=code, reason="because of the weather"),))
    assert found.verdict is Verdict.DOWN
    assert found.summary.startswith(f"DOWN: link hk is down ({code}): because of the weather")
    assert found.problems[0].code == f"link-{code}"
    assert found.problems[0].next_step


def test_one_of_two_links_down_is_degraded() -> None:
    found = status(READY, links=(UP, LinkStatus("sg", "tun-sg", "connecting")))
    assert found.verdict is Verdict.DEGRADED
    assert "link sg is connecting" in found.summary


def test_a_fallback_of_the_firewall_is_information() -> None:
    found = status(READY, fallback="yes")
    assert found.verdict is Verdict.OK
    assert found.firewall.fallback_reason == "iptables cannot clamp"


def test_a_foreign_entry_degrades_and_names_the_cidr() -> None:
    blocked = replace(READY, cloud=Layer(LayerState.ERROR, "vtb-1 already sends it to i-9", "foreign-entry"))
    found = status(READY, replace(blocked, intent=Intent(SERVICE, "hk")))
    assert found.verdict is Verdict.DEGRADED
    assert found.problems[0].code == "foreign-entry"
    assert "10.96.0.0/16" in found.summary
    assert "1 of 2 CIDRs ready" in found.summary


def test_a_problem_of_the_whole_cloud_is_said_once() -> None:
    problem = Problem("cloud-denied", "cloud: no", "mend the role")
    waiting = replace(READY, cloud=Layer(LayerState.ERROR, "cloud: no", "cloud-denied"))
    found = status(waiting, waiting, cloud=replace(CLOUD, error=problem))
    assert found.problems == (problem,)
    assert found.verdict is Verdict.DEGRADED


def test_strays_problems_of_kernel_and_disk_are_shown() -> None:
    found = status(READY, cloud=replace(CLOUD, strays=(SERVICE,)), kernel="no netlink", store="disk full")
    assert [problem.code for problem in found.problems] == ["store-unavailable", "kernel", "stray-entry"]
    assert found.summary.startswith("DEGRADED: disk full (and 2 more)")


def test_what_is_still_being_added_is_no_problem_but_not_up_either() -> None:
    adding = replace(READY, kernel=Layer(LayerState.PENDING, "not yet"), cloud=Layer(LayerState.PENDING, "not yet"))
    found = status(adding)
    assert found.verdict is Verdict.DOWN
    assert found.summary.startswith("DOWN: nothing is carried yet")
    assert status(READY, replace(adding, intent=Intent(SERVICE, "hk"))).verdict is Verdict.OK


def test_a_cidr_that_is_leaving_counts_no_more() -> None:
    leaving = CidrStatus(Intent(POD, "hk", phase=Phase.LEAVING), OK, Layer(LayerState.ERROR, "x", "y"))
    found = status(leaving)
    assert found.verdict is Verdict.OK
    assert found.cidrs == (leaving,)
