"""The real programs together: what the demo shows, in pieces that fail one by one."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from tests.lab import probes, topology
from tests.lab.lab import Lab
from tests.lab.programs import INSTANCE, LINK
from tests.lab.story import CIDRS, Story, cloud_writes, kernel_routes, nobody_knows_the_tunnel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("pod", topology.PODS)
@pytest.mark.parametrize("host", topology.HOSTS)
def test_every_host_pings_every_pod(joined_lab: Lab, host: str, pod: str) -> None:
    probes.ping(joined_lab[host], topology.PODS[pod], count=1)


def test_the_tunnels_far_end_is_among_the_hops(joined_lab: Lab) -> None:
    assert topology.TUNNEL_GATEWAY in probes.traceroute(joined_lab["host1"], topology.PODS["pod1"])


@pytest.mark.parametrize("pod", topology.PODS)
def test_a_host_fetches_the_page_of_every_pod(joined_lab: Lab, pod: str) -> None:
    assert probes.curl(joined_lab["host1"], topology.PODS[pod]).pod == pod


def test_the_service_address_reaches_every_pod(joined_lab: Lab) -> None:
    Story(joined_lab).service()


def test_a_full_packet_passes_unfragmented(joined_lab: Lab) -> None:
    probes.ping(joined_lab["host1"], topology.PODS["pod1"], count=1, size=1472, df=True)


def test_any_ip_protocol_passes(joined_lab: Lab) -> None:
    probes.raw_protocol(joined_lab["host1"], joined_lab["pod1"], topology.PODS["pod1"])


def test_nobody_behind_the_far_end_learnt_the_tunnels_addresses(joined_lab: Lab) -> None:
    nobody_knows_the_tunnel(joined_lab)


def test_the_cloud_sends_both_cidrs_to_the_appliance(joined_lab: Lab) -> None:
    entries = {entry["destination"]: entry for entry in joined_lab.cloud_table()}
    for cidr in CIDRS:
        assert (entries[cidr]["next_hop"], entries[cidr]["status"]) == (INSTANCE, "Available")


def test_adding_a_cidr_again_is_no_error_and_sends_the_cloud_nothing(joined_lab: Lab) -> None:
    writes = cloud_writes(joined_lab)
    joined_lab.api("POST", "/v1/cidrs", {"cidr": CIDRS[0], "via": LINK})
    joined_lab.nexthop("cidr", "add", CIDRS[1], "--via", LINK)
    assert cloud_writes(joined_lab) == writes


@pytest.mark.parametrize(
    ("cidr", "code"),
    [
        ("10.244.0.0/33", "bad-cidr"),
        ("nonsense", "bad-cidr"),
        ("10.244.1.0/16", "bad-cidr"),
        ("0.0.0.0/0", "default-route"),
        ("172.16.0.0/12", "contains-vpc"),
        ("172.18.1.0/25", "overlaps-vswitch"),
        ("100.100.100.200/32", "metadata"),
        ("203.0.113.10/32", "tunnel-server"),
    ],
)
def test_a_cidr_that_would_do_harm_is_refused_and_nothing_changes(joined_lab: Lab, cidr: str, code: str) -> None:
    before = (joined_lab.api("GET", "/v1/cidrs"), joined_lab.cloud_table(), _routes(joined_lab))
    done = joined_lab.nexthop("cidr", "add", cidr, "--via", LINK, "--json", check=False)
    assert done.returncode == 1
    assert code in done.stdout + done.stderr
    assert (joined_lab.api("GET", "/v1/cidrs"), joined_lab.cloud_table(), _routes(joined_lab)) == before


def test_the_socket_is_for_root_and_its_group_only(joined_lab: Lab) -> None:
    path: Path = joined_lab.place("appliance") / "run" / "nexthopd.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    done = joined_lab["appliance"].run(
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"),
        *("curl", "-sS", "--unix-socket", str(path), "http://localhost/v1/status"),
        check=False,
    )
    assert done.returncode != 0
    assert not done.stdout


def test_sigterm_ends_the_daemon_with_0_while_packets_keep_flowing(joined_lab: Lab) -> None:
    hold = joined_lab.place("appliance") / "hold" / "nexthopd"
    hold.touch()
    try:
        pid = joined_lab.unit("appliance", "nexthopd").pid
        assert pid
        os.kill(pid, signal.SIGTERM)
        joined_lab.wait("nexthopd to end", lambda: joined_lab.unit("appliance", "nexthopd").pid is None)
        assert joined_lab.unit("appliance", "nexthopd").exit == 0
        probes.ping(joined_lab["host1"], topology.PODS["pod1"], count=1)
        assert kernel_routes(joined_lab, CIDRS[0])
    finally:
        hold.unlink()
    joined_lab.wait("nexthopd", lambda: joined_lab.unit("appliance", "nexthopd").pid)
    joined_lab.wait_for_api()


def test_a_dead_gtun_is_answered_for_at_once_and_comes_back_as_it_was(joined_lab: Lab) -> None:
    story = Story(joined_lab, address=joined_lab.link()["address"])
    story.tunnel_dies()
    story.tunnel_returns()


def test_removed_cidrs_are_gone_everywhere_and_can_be_added_again(joined_lab: Lab) -> None:
    story = Story(joined_lab)
    story.remove()
    story.nothing_arrives()
    story.add()
    probes.ping(joined_lab["host1"], topology.PODS["pod1"], count=1)


def _routes(lab: Lab) -> object:
    return json.loads(lab["appliance"].shell("ip -j route show table all"))
