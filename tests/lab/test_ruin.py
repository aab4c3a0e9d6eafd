"""A disk that is full, read-only, or lies; and the end of it all. Packets flow on, and nothing acknowledged is lost."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from api.client import Failed as CallFailed
from tests.lab import faults, probes, topology
from tests.lab.lab import Lab
from tests.lab.programs import LINK, nexthop
from tests.lab.story import CIDRS, add_cidrs, kernel_routes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

MORE = "10.250.0.0/16"
DAEMONS = ("nexthop-forward", "nexthopd")
FOREIGN = "iptables-legacy -w -A FORWARD -s 192.0.2.7 -j DROP; ip route add 198.18.0.0/15 via 172.18.2.253"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A joined lab whose appliance keeps its state on a small disk of its own."""
    with Lab.open() as lab:
        state = lab.place("appliance") / "state"
        state.mkdir(mode=0o700)
        mount("-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(state))
        try:
            lab["appliance"].shell(FOREIGN)
            (lab.directory / "before").write_text(foreign(lab))
            lab.start_all()
            lab.join()
            add_cidrs(lab)
            yield lab
        finally:
            lab.stop()
            subprocess.run(["umount", "--lazy", str(state)], check=True)


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def foreign(lab: Lab) -> str:
    """Return rules, chains and routes of the appliance as text; tables and chains that are empty do not count."""
    empty = re.compile(r"^(?:\*.*|COMMIT|:[A-Z]+ (?:ACCEPT|DROP) *)\n", re.MULTILINE)
    return empty.sub("", faults.rules(lab)) + lab["appliance"].shell("ip -4 route show table all; ip rule")


def state(lab: Lab) -> Path:
    return lab.place("appliance") / "state"


def refused(lab: Lab, cidr: str) -> str:
    with pytest.raises(CallFailed) as failure:
        lab.api("POST", "/v1/cidrs", {"cidr": cidr, "via": LINK})
    return str(failure.value.problem["code"])


def problems(lab: Lab) -> set[str]:
    return {each["code"] for each in lab.api("GET", "/v1/status")["findings"]}


def kernel(lab: Lab) -> str:
    """Return what is said of the kernel."""
    return " ".join(each["text"] for each in lab.api("GET", "/v1/status")["findings"] if each["code"] == "kernel")


def flows(lab: Lab) -> None:
    probes.ping(lab["host1"], topology.PODS["pod1"], count=2)


def restart(lab: Lab) -> None:
    """Kill both daemons, and wait for the next ones."""
    for unit in DAEMONS:
        before = lab.unit("appliance", unit).starts
        lab.kill("appliance", unit)
        lab.wait(f"a new {unit}", lambda: lab.unit("appliance", unit).starts > before)  # noqa: B023
    lab.wait_for_api()


def comes_back(lab: Lab) -> None:
    """See that all is well again without help, and that changes are taken."""
    lab.wait("the verdict", lambda: faults.over(lab))
    assert {each["cidr"] for each in lab.api("GET", "/v1/cidrs")["cidrs"]} == set(CIDRS)
    lab.api("POST", "/v1/cidrs", {"cidr": MORE, "via": LINK})
    lab.api("DELETE", f"/v1/cidrs/{MORE}")
    lab.wait("it to be gone", lambda: len(lab.api("GET", "/v1/cidrs")["cidrs"]) == len(CIDRS))


def test_a_full_disk_refuses_changes_and_loses_nothing(lab: Lab) -> None:
    ballast = state(lab) / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=1k"], check=False, capture_output=True)
    try:
        assert refused(lab, MORE) == "store-unavailable"
        assert "store-unavailable" in problems(lab)
        flows(lab)
        restart(lab)
        flows(lab)
        assert refused(lab, MORE) == "store-unavailable"
    finally:
        ballast.unlink()
    comes_back(lab)


def test_a_read_only_disk_refuses_changes_and_loses_nothing(lab: Lab) -> None:
    lab.kill("appliance", "nexthopd", hold=True)  # a file that is open for writing keeps the kernel from this
    lab.wait("its end", lambda: lab.unit("appliance", "nexthopd").pid is None)
    mount("-o", "remount,ro", str(state(lab)))
    try:
        lab.let_go("appliance", "nexthopd")
        lab.wait("a new nexthopd", lambda: lab.unit("appliance", "nexthopd").pid)
        lab.wait_for_api()
        assert refused(lab, MORE) == "store-unavailable"
        assert "store-unavailable" in problems(lab)
        assert kernel_routes(lab, CIDRS[0])
        flows(lab)
        assert refused(lab, MORE) == "store-unavailable"
    finally:
        mount("-o", "remount,rw", str(state(lab)))
    comes_back(lab)


def test_a_disk_that_is_away_costs_no_tunnel_and_all_comes_back_with_it(lab: Lab) -> None:
    device = lab["appliance"].shell("ip -o link show tun-hk")
    gtun, elsewhere = lab.unit("appliance", f"gtun@{LINK}").pid, lab.directory / "elsewhere"
    elsewhere.mkdir()
    mount("--bind", str(state(lab)), str(elsewhere))
    try:
        subprocess.run(["umount", "--lazy", str(state(lab))], check=True)
        assert not [*state(lab).iterdir()]
        lab.wait("it to be noticed", lambda: "kernel" in problems(lab))
        flows(lab)
    finally:
        mount("--bind", str(elsewhere), str(state(lab)))
        subprocess.run(["umount", "--lazy", str(elsewhere)], check=True)
    comes_back(lab)
    assert lab["appliance"].shell("ip -o link show tun-hk") == device
    assert lab.unit("appliance", f"gtun@{LINK}").pid == gtun


def test_a_machine_that_boots_without_its_database_forwards_nothing(lab: Lab) -> None:
    """What the cloud sends to it would leave by eth0, where it came from."""
    database, setting = state(lab) / "nexthop.db", "/proc/sys/net/ipv4/ip_forward"
    lab.kill("appliance", "nexthopd", hold=True)
    lab.wait("its end", lambda: lab.unit("appliance", "nexthopd").pid is None)
    database.rename(state(lab) / "away")
    lab["appliance"].shell(f"echo 0 > {setting}")
    lab.kill("appliance", "nexthop-forward")
    lab.let_go("appliance", "nexthopd")
    lab.wait("a new nexthopd", lambda: lab.unit("appliance", "nexthopd").pid)
    lab.wait_for_api()
    lab.wait("it to be told", lambda: "not as wanted" in kernel(lab) and "nexthop.db" in kernel(lab))
    assert lab["appliance"].shell(f"cat {setting}") == "0\n"
    (state(lab) / "away").rename(database)
    comes_back(lab)
    assert lab["appliance"].shell(f"cat {setting}") == "1\n"
    flows(lab)


def test_a_torn_database_stops_no_packet_and_is_restored_on_command(lab: Lab) -> None:
    database = state(lab) / "nexthop.db"
    backup = state(lab) / "nexthop.db.backup"
    lab.wait("the backup", lambda: backup.exists() and all(cidr in backup.read_text() for cidr in CIDRS)
             and MORE not in backup.read_text().partition("released")[0])  # fmt: skip
    lab.kill("appliance", "nexthopd", hold=True)
    with database.open("r+b") as file:
        file.write(b"\xff" * 8192)
    lab.let_go("appliance", "nexthopd")
    lab.wait("a new nexthopd", lambda: lab.unit("appliance", "nexthopd").pid)
    lab.wait_for_api()
    assert "store-unavailable" in problems(lab)
    assert refused(lab, MORE) == "store-unavailable"
    assert kernel_routes(lab, CIDRS[0])
    flows(lab)
    assert "restored 2 CIDRs" in lab.nexthop("restore").stdout
    comes_back(lab)
    flows(lab)
    assert lab.nexthop("restore", check=False).returncode == 1  # nothing is the matter any more


def test_a_purge_waits_for_the_daemon_to_be_stopped(lab: Lab) -> None:
    done = purge(lab, check=False)
    assert done.returncode == 1
    assert "systemctl stop nexthopd" in done.stderr
    flows(lab)


def test_a_purge_leaves_nothing_of_ours_and_all_of_others(lab: Lab) -> None:
    """The last test of this file: there is nothing left to test."""
    for unit in (*DAEMONS, f"gtun@{LINK}"):
        lab.kill("appliance", unit, hold=True)
        lab.wait("its end", lambda unit=unit: lab.unit("appliance", unit).pid is None)  # type: ignore[misc]
    said = purge(lab).stdout
    assert "device tun-hk" in said
    assert f"route entry {topology.POD_CIDR}" in said
    assert foreign(lab) == (lab.directory / "before").read_text()
    assert not [entry for entry in lab.cloud_table() if entry["destination"] in CIDRS]
    assert "tun-hk" not in lab["appliance"].shell("ip link")
    assert purge(lab).stdout == ""


def purge(lab: Lab, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    place = lab.place("appliance")
    return lab["appliance"].run(*nexthop(place, "purge", "--yes", "--config", f"{place}/nexthop.toml"), check=check)
