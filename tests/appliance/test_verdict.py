from __future__ import annotations

import itertools
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
    Repeated,
    Status,
)
from appliance.tunnel.messages import Refusal
from appliance.verdict import Finding, Level, Verdict, findings, judge
from tests.appliance.fakes import POD, SERVICE

UP = LinkStatus("hk", "tun-hk", "up")
OK = Layer(LayerState.OK, "fine")
READY = CidrStatus(Intent(POD, "hk"), OK, OK)
CLOUD = CloudStatus("aliyun", "vpc-1", "i-1", ("vtb-1",))
IPTABLES = FirewallStatus("iptables")


def status(
    *cidrs: CidrStatus, links: tuple[LinkStatus, ...] = (UP,), cloud: CloudStatus = CLOUD, **more: str
) -> tuple[Verdict, tuple[Finding, ...]]:
    firewall = FirewallStatus("nftables", "iptables cannot clamp") if more.pop("fallback", "") else IPTABLES
    whole = Status(links, cidrs, firewall, cloud, more.get("kernel"), more.get("store"))
    found = findings(whole)
    return judge(whole, found), found


def codes(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(each.level.value, each.code) for each in found]


def test_all_well() -> None:
    said, found = status(READY)
    assert said == Verdict(Level.OK, "1 of 1 CIDRs ready, 1 of 1 links up", "")
    assert found == ()


def test_a_fresh_appliance_is_well_and_says_what_to_do() -> None:
    said, found = status(links=())
    assert said.level is Level.OK
    assert said.text == "there is no link yet"
    assert "nexthop link join" in said.next_step
    assert codes(found) == [("ok", "no-link"), ("ok", "no-cidr")]


@pytest.mark.parametrize("code", ["pin-mismatch", "denied", "unreachable", "not-running", "of-tomorrow"])
def test_the_first_line_says_why_the_link_is_down(code: str) -> None:
    said, found = status(READY, links=(replace(UP, state="down", code=code, reason="because of the weather"),))
    assert said.level is Level.BROKEN
    assert said.text.startswith(f"link hk is down ({code}): because of the weather")
    assert said.next_step == found[0].next_step
    assert found[0].code == f"link-{code}"
    assert found[0].about == "hk"
    assert found[0].next_step


@pytest.mark.parametrize("code", [*(each.value for each in Refusal), "pin-mismatch", "gone", "timeout", "device"])
def test_for_every_end_of_a_session_there_is_a_next_step_of_its_own(code: str) -> None:
    said, _ = status(READY, links=(replace(UP, state="down", code=code),))
    unknown, _ = status(READY, links=(replace(UP, state="down", code="of-tomorrow"),))
    assert said.next_step != unknown.next_step
    assert ("nexthop link rotate hk" in said.next_step) == (code in {"denied", "removed", "pin-mismatch"})


def test_somebody_who_keeps_changing_a_setting_is_told_with_how_often() -> None:
    whole = Status((UP,), (READY,), IPTABLES, CLOUD, meddling=(Repeated("sysctl", "net/ipv4/ip_forward", 47),))
    (found,) = findings(whole)
    assert (found.level, found.code, found.about) == (Level.DEGRADED, "meddling", "net/ipv4/ip_forward")
    assert "net/ipv4/ip_forward" in found.text
    assert "47 times in the last minute" in found.text
    assert "sysctl.d" in found.next_step


def test_a_link_whose_path_is_unproven_is_shown_with_what_would_prove_it() -> None:
    said, found = status(READY, links=(replace(UP, code="unproven", reason="no ping was answered"),))
    assert codes(found) == [("degraded", "link-unproven")]
    assert "link hk is up (unproven): no ping was answered; 1 of 1 CIDRs ready, 1 of 1 links up" in said.text
    assert "--probe" in said.next_step


@pytest.mark.parametrize("state", ["connecting", "down"])
@pytest.mark.parametrize("code", ["", "denied", "of-tomorrow"])
@pytest.mark.parametrize("layer", ["foreign-entry", "cloud-quota", "of-tomorrow"])
def test_no_finding_says_anything_twice(state: str, code: str, layer: str) -> None:
    broken = replace(READY, cloud=Layer(LayerState.ERROR, "vtb-1 has no room", layer))
    told = [*status(broken, links=(replace(UP, state=state, code=code),))[1], *status(links=())[1]]
    for finding in told:
        assert finding.next_step not in finding.text
        words = finding.text.replace("(", "").replace(")", "").replace(":", "").split()
        assert not any(one == other for one, other in itertools.pairwise(words)), finding.text


def test_one_of_two_links_down_is_degraded() -> None:
    said, _ = status(READY, links=(UP, LinkStatus("sg", "tun-sg", "connecting")))
    assert said.level is Level.DEGRADED
    assert "link sg is connecting" in said.text


def test_a_fallback_of_the_firewall_is_information() -> None:
    assert status(READY, fallback="yes")[0].level is Level.OK


def test_a_foreign_entry_names_the_cidr_and_is_as_bad_as_what_still_works() -> None:
    blocked = replace(READY, cloud=Layer(LayerState.ERROR, "vtb-1 already sends it to i-9", "foreign-entry"))
    said, found = status(READY, replace(blocked, intent=Intent(SERVICE, "hk")))
    assert said.level is Level.DEGRADED
    assert (found[0].code, found[0].about) == ("foreign-entry", "10.96.0.0/16")
    assert "10.96.0.0/16" in said.text
    assert "1 of 2 CIDRs ready" in said.text
    assert status(blocked)[0].level is Level.BROKEN


def test_a_pod_network_that_is_down_is_told_from_a_tunnel_that_is() -> None:
    silent = replace(READY, path=Layer(LayerState.ERROR, "tcp:10.244.1.20:80 does not answer", "no-path"))
    said, found = status(silent)
    assert codes(found) == [("broken", "no-path")]
    assert "the tunnel works" in said.next_step


@pytest.mark.parametrize("code", ["cloud-denied", "cloud-unavailable"])
def test_a_problem_of_the_whole_cloud_is_said_once(code: str) -> None:
    problem = Problem(code, "cloud: no", "mend the role")
    waiting = replace(READY, cloud=Layer(LayerState.ERROR, "cloud: no", code))
    said, found = status(waiting, waiting, cloud=replace(CLOUD, error=problem))
    assert codes(found) == [("broken", code)]
    assert said.next_step == "mend the role"
    said, found = status(READY, cloud=replace(CLOUD, error=problem))
    assert codes(found) == [("degraded", code)]  # what is in the tables goes on


def test_a_full_table_is_told_with_what_to_do() -> None:
    full = replace(READY, cloud=Layer(LayerState.ERROR, "vtb-1 has no room", "cloud-quota"))
    said, found = status(READY, replace(full, intent=Intent(SERVICE, "hk")))
    assert codes(found) == [("degraded", "cloud-quota")]
    assert "quota" in said.next_step


def test_a_kernel_that_is_not_as_wanted_breaks_what_it_does_not_carry() -> None:
    off = replace(READY, kernel=Layer(LayerState.PENDING, "ip_forward is off", "kernel"))
    said, found = status(off, kernel="net.ipv4.ip_forward is 0 and cannot be set")
    assert codes(found) == [("broken", "kernel")]
    assert "ip_forward" in said.text
    assert status(READY, kernel="x")[0].level is Level.DEGRADED


def test_what_a_table_that_is_programmed_no_more_still_sends_here_is_shown() -> None:
    said, found = status(READY, cloud=replace(CLOUD, left=(("vtb-9", POD),)))
    assert codes(found) == [("degraded", "left-behind")]
    assert "vtb-9" in said.text
    assert "route_tables" in said.next_step


def test_strays_problems_of_kernel_and_disk_are_shown() -> None:
    said, found = status(READY, cloud=replace(CLOUD, strays=(SERVICE,)), kernel="no netlink", store="disk full")
    assert [each.code for each in found] == ["store-unavailable", "kernel", "stray-entry"]
    assert said.text.startswith("disk full (and 2 more)")


def test_what_is_still_being_added_is_on_its_way_and_not_up_either() -> None:
    adding = replace(READY, kernel=Layer(LayerState.PENDING, "not yet"), cloud=Layer(LayerState.PENDING, "not yet"))
    said, found = status(adding)
    assert codes(found) == [("degraded", "not-carried-yet")]
    assert said.text.startswith("nothing is carried yet")
    assert status(READY, replace(adding, intent=Intent(SERVICE, "hk")))[0].level is Level.OK


def test_a_cidr_that_is_leaving_counts_no_more() -> None:
    leaving = CidrStatus(Intent(POD, "hk", phase=Phase.LEAVING), OK, Layer(LayerState.ERROR, "x", "y"))
    assert status(leaving)[1] == ()
