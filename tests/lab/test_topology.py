"""The lab itself, before any program of ours runs in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import ground, probes, topology
from tests.lab.lab import Lab
from tests.lab.space import ROOT
from tests.lab.story import nobody_knows_the_tunnel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab


def picture_of_root() -> dict[str, str]:
    """Return what a lab must not change in the root namespace."""
    picture = {}
    for what in ("link", "addr", "rule", "route show table all", "-6 route show table all", "-6 rule", "tuntap"):
        picture[what] = subprocess.run(["ip", *what.split()], capture_output=True, text=True, check=True).stdout
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and not {"nf_conntrack_count", "entropy"} & {path.name}:
            try:
                picture[str(path)] = path.read_text()
            except OSError:
                picture[str(path)] = "unreadable"
    return picture


def test_a_host_has_one_default_route_and_nothing_of_ours(bare_lab: Lab) -> None:
    for host in topology.HOSTS:
        routes = json.loads(bare_lab[host].shell("ip -j route"))
        assert [(route["dst"], route.get("gateway")) for route in routes] == [
            ("default", topology.GATEWAY[host]),
            (str(ip_network(f"{topology.HOSTS[host]}/24", strict=False)), None),
        ]


def test_the_virtual_router_drops_in_silence_what_it_has_no_route_for(bare_lab: Lab) -> None:
    probes.silence(bare_lab["host1"], topology.PODS["pod1"])
    probes.silence(bare_lab["host1"], topology.GTUND_EIP)


def test_hosts_reach_the_appliance_and_the_metadata_service(bare_lab: Lab) -> None:
    probes.ping(bare_lab["host1"], topology.APPLIANCE, count=1)
    told = bare_lab["appliance"].shell(f"curl -sSf http://{topology.METADATA}/latest/meta-data/instance-id")
    assert told == "i-nexthop"


def test_the_appliance_reaches_the_far_end_by_its_elastic_address(bare_lab: Lab) -> None:
    probes.ping(bare_lab["appliance"], topology.GTUND_EIP, count=1)


def test_the_far_end_reaches_pods_and_every_pod_through_the_service(bare_lab: Lab) -> None:
    for pod, address in topology.PODS.items():
        assert probes.curl(bare_lab["gtund"], address).pod == pod
    served = {probes.curl(bare_lab["gtund"], topology.SERVICE).pod for _ in range(60)}
    assert served == set(topology.PODS)


def test_nobody_behind_the_far_end_knows_the_tunnels_addresses(bare_lab: Lab) -> None:
    nobody_knows_the_tunnel(bare_lab)


def test_a_long_path_can_lie_between_the_clouds() -> None:
    with Lab.open(delay=True) as lab:
        lab.start_cloud()
        lab.start("delay", "wan", sys.executable, "-m", "tests.lab.wan", "left", "right", "--delay-ms", "20")
        lab.wait(
            "the path",
            lambda: not lab["appliance"].run("ping", "-c1", "-W1", topology.GTUND_EIP, check=False).returncode,
        )
        assert probes.ping(lab["appliance"], topology.GTUND_EIP) >= 40.0


def test_two_labs_stand_side_by_side_and_one_goes_alone() -> None:
    with Lab.open() as one:
        one.start_pods()
        with Lab.open() as other:
            other.start_pods()
            assert one.id != other.id
            assert probes.curl(other["node"], topology.PODS["pod1"]).status == 200
        assert not list(ground.NETNS.glob(f"nh{other.id}-*"))
        assert not other.directory.exists()
        assert probes.curl(one["node"], topology.PODS["pod1"]).status == 200


def test_a_lab_changes_nothing_in_the_root_namespace_and_leaves_nothing() -> None:
    before = picture_of_root()
    with Lab.open() as lab:
        lab.start_pods()
        lab.start_cloud()
        assert picture_of_root() == before
    assert picture_of_root() == before
    assert lab.id not in ground.labs()


@pytest.fixture
def orphan() -> Iterator[tuple[str, set[int]]]:
    """Return a lab whose owner was killed with SIGKILL, and the programs that ran in it."""
    script = """
import sys, time
from tests.lab.lab import Lab
with Lab.open() as lab:
    lab.start_pods()
    lab["host1"].run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")  # one that no signal of its parent ends
    print(lab.id, flush=True)
    time.sleep(1000)
"""
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    lab = owner.stdout.readline().strip()
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    yield lab, {pid for space in ground.NETNS.glob(f"nh{lab}-*") for pid in ground.inside(space)}
    ground.release(lab)


def test_what_a_killed_owner_left_is_reaped_and_a_living_lab_is_not(orphan: tuple[str, set[int]]) -> None:
    lab, left = orphan
    assert left
    with Lab.open() as living:  # opening a lab reaps
        assert lab not in ground.labs()
        assert not [pid for pid in left if ground.running(pid)]
        assert living.id not in ground.reap_dead()
        probes.ping(living["gtund"], topology.PODS["pod1"], count=1)


def test_an_owner_is_alive_only_with_its_own_start_time() -> None:
    me = ground.Owner.this_process()
    assert me.alive
    assert not ground.Owner(me.pid, me.start + 1, me.boot).alive
    assert not ground.Owner(me.pid, me.start, "another boot").alive
    assert os.getpid() == me.pid
