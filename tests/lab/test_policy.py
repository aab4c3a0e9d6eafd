"""What each CIDR's own options do to real packets and to the real route table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab import probes, topology
from tests.lab.programs import LINK

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

AT = f"/v1/cidrs/{topology.POD_CIDR}"


def in_the_cloud(lab: Lab, cidr: str) -> bool:
    return any(entry["destination"] == cidr for entry in lab.cloud_table())


def test_a_link_that_stays_down_takes_its_withdrawing_cidr_out_of_the_cloud_and_brings_it_back(joined_lab: Lab) -> None:
    lab = joined_lab
    lab.api("PATCH", AT, {"when_down": "withdraw", "hold_down": 0.5})
    try:
        lab.kill("appliance", f"gtun@{LINK}", hold=True)
        lab.wait("the entry to go", lambda: not in_the_cloud(lab, topology.POD_CIDR))
        assert in_the_cloud(lab, topology.SERVICE_CIDR)  # its policy is to keep
        shown = lab.api("GET", AT)
        assert shown["phase"] == "present"
        assert (shown["layers"]["cloud"]["state"], shown["layers"]["cloud"]["code"]) == ("absent", "withheld")
    finally:
        lab.let_go("appliance", f"gtun@{LINK}")
    lab.wait("the entry to come back", lambda: in_the_cloud(lab, topology.POD_CIDR))
    lab.api("PATCH", AT, {"when_down": "keep", "hold_down": 30})
    lab.wait("it to be carried", lambda: lab.api("GET", AT)["layers"]["cloud"]["state"] == "ok")
    probes.ping(lab["host1"], topology.PODS["pod1"], count=1)


def mangle(lab: Lab) -> str:
    """Return the table as text; a listing breaks off where a set vanishes under it."""
    return lab["appliance"].shell("iptables-legacy-save -t mangle", check=False)


@pytest.mark.iptables
@pytest.mark.parametrize(("mss", "seen"), [("1000", "mss 1000"), ("off", "mss 1460")])
def test_the_mss_of_a_cidr_is_what_the_far_end_sees(joined_lab: Lab, mss: str, seen: str) -> None:
    lab = joined_lab
    lab.api("PATCH", AT, {"mss": mss})
    rule = re.compile("set-mss 1000" if mss == "1000" else r"--match-set \S+0 dst .*-j RETURN")
    lab.wait("the rule", lambda: rule.search(mangle(lab)))
    try:
        with probes.Capture.open(lab["pod1"], "eth0", "tcp[tcpflags] & tcp-syn != 0") as capture:
            probes.curl(lab["host1"], topology.PODS["pod1"])
            (request, *_) = capture.frames(lab["host1"], topology.PODS["pod1"])
        assert seen in request
    finally:
        lab.api("PATCH", AT, {"mss": "auto"})
    lab.wait("the rule to go", lambda: not rule.search(mangle(lab)))


def test_a_probe_target_that_stops_answering_is_told_and_its_link_is_not_blamed(joined_lab: Lab) -> None:
    lab = joined_lab
    lab.api("PATCH", AT, {"probe": f"tcp:{topology.PODS['pod1']}:80"})
    lab.wait("the path", lambda: lab.api("GET", AT)["path"]["state"] == "ok")
    block = f"ip route {{0}} blackhole {topology.PODS['pod1']}/32"
    lab["node"].shell(block.format("add"))
    try:
        lab.wait("the path to break", lambda: lab.api("GET", AT)["path"]["code"] == "no-path")
        assert lab.link()["state"] == "up"
        assert lab.api("GET", "/v1/status")["verdict"]["level"] == "degraded"
    finally:
        lab["node"].shell(block.format("del"))
    lab.wait("the path", lambda: lab.api("GET", AT)["path"]["state"] == "ok")
    told = [event["what"] for event in lab.api("GET", "/v1/history")["events"] if event["who"] == "probe"]
    assert told[:3] == ["path works", "path broke", "path works"]
    lab.api("PATCH", AT, {"probe": ""})


def test_a_tunnel_that_is_up_and_does_not_forward_is_down(joined_lab: Lab) -> None:
    lab = joined_lab
    mute = 'iifname != { "lo", "eth0" } icmp type echo-request drop'
    table = f"table ip mute {{ chain in {{ type filter hook input priority -300; {mute}; }}; }}"
    lab["gtund"].run("nft", "-f", "-", stdin=table)
    try:
        lab.wait("the link to be told down", lambda: lab.link()["code"] == "no-path")
        assert lab.api("GET", "/v1/status")["verdict"]["level"] == "broken"
    finally:
        lab["gtund"].shell("nft delete table ip mute")
    lab.wait("the link", lambda: lab.link()["state"] == "up")
    lab.wait("the verdict", lambda: lab.api("GET", "/v1/status")["verdict"]["level"] == "ok")
