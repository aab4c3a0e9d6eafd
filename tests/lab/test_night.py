"""At two in the morning: whatever is broken, the first screen of `nexthop status` names it and what to do next."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import programs, topology
from tests.lab.lab import Lab
from tests.lab.programs import LINK, TABLE
from tests.lab.space import Failed
from tests.lab.story import add_cidrs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

SCREEN = 24  # lines
EXTRA = "10.77.0.0/16"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.open() as lab:
        lab.start_all()
        lab.join()
        add_cidrs(lab)
        yield lab


def emulator(lab: Lab, method: str, what: str, body: object = None) -> Any:
    """Ask the emulated cloud itself for something."""
    data = () if body is None else ("-d", json.dumps(body))
    url = f"http://{topology.CLOUD_API}/_emulator/{what}"
    return json.loads(lab["vrouter"].run("curl", "-sSf", "-X", method, *data, url).stdout or "null")


def screen(lab: Lab, *cause: str, step: str) -> None:
    """Wait until the first screen names the cause, and the next step right behind it."""

    seen = [""]

    def found() -> bool:
        shown = lab.nexthop("status", check=False)
        seen[0] = shown.stdout
        lines = shown.stdout.splitlines()[:SCREEN]
        at = next((n for n, line in enumerate(lines) if all(word in line for word in cause)), None)
        return (
            shown.returncode == 1
            and at is not None
            and lines[at + 1].strip().startswith("-> ")
            and step in lines[at + 1]
        )

    try:
        lab.wait(f"a screen that says {cause}", found)
    except Failed as failure:
        pytest.fail(f"{seen[0]}\n{failure}")


def well(lab: Lab) -> None:
    """Wait until all is well again."""
    lab.wait("all to be well", lambda: lab.nexthop("status", check=False).stdout.startswith("OK: "))


@contextlib.contextmanager
def permissions(lab: Lab, *actions: str) -> Iterator[None]:
    """Let the appliance's role do no more than this for a while."""
    before = emulator(lab, "GET", "permissions")["permissions"]
    emulator(lab, "PUT", "permissions", {"role/nexthop": list(actions)})
    try:
        yield
    finally:
        emulator(lab, "PUT", "permissions", {"role/nexthop": before["role/nexthop"]})


@contextlib.contextmanager
def one_more(lab: Lab) -> Iterator[None]:
    """Ask for one CIDR more, and take that back."""
    lab.api("POST", "/v1/cidrs", {"cidr": EXTRA, "via": LINK})
    try:
        yield
    finally:
        lab.api("DELETE", f"/v1/cidrs/{EXTRA}")


def test_gtund_cannot_be_reached(lab: Lab) -> None:
    lab.kill("gtund", "gtund", hold=True)
    try:
        screen(lab, "BROKEN: ", f"link {LINK} is down", step="gtund runs")
    finally:
        lab.let_go("gtund", "gtund")
    well(lab)


def test_the_client_was_removed_at_the_far_end(lab: Lab) -> None:
    place = lab.place("gtund")
    lab["gtund"].run(*programs.gtund(place, "client", "rm", "shenzhen"))
    screen(lab, "BROKEN: ", f"link {LINK} is down", step="gtund client add")
    for cidr in (topology.POD_CIDR, topology.SERVICE_CIDR):
        lab.nexthop("cidr", "rm", cidr)
    lab.nexthop("link", "rm", LINK)
    lab.join()
    add_cidrs(lab)
    well(lab)


def test_somebody_elses_route_entry_is_in_the_way(lab: Lab) -> None:
    made = emulator(
        lab,
        "POST",
        "console",
        {
            "Action": "CreateRouteEntry",
            "RouteTableId": TABLE,
            "DestinationCidrBlock": EXTRA,
            "NextHopType": "Instance",
            "NextHopId": "i-host1",
        },
    )
    try:
        with one_more(lab):
            screen(lab, EXTRA, "i-host1", step="nexthop cidr adopt")
    finally:
        emulator(lab, "POST", "console", {"Action": "DeleteRouteEntry", "RouteEntryId": made["RouteEntryId"]})
    well(lab)


def test_the_cloud_denies_what_it_allowed(lab: Lab) -> None:
    with permissions(lab, "vpc:Describe*", "ecs:Describe*"), one_more(lab):
        screen(lab, "not authorized", step="nexthop ram-policy")
    well(lab)


def test_the_route_table_is_full(lab: Lab) -> None:
    fault = {"kind": "error", "action": "CreateRouteEntr*", "code": "QuotaExceeded.RouteEntry", "status": 400}
    emulator(lab, "POST", "faults", fault)
    try:
        with one_more(lab):
            screen(lab, EXTRA, "uota", step="quota")
    finally:
        emulator(lab, "DELETE", "faults")
    well(lab)


def test_the_pod_network_is_down(lab: Lab) -> None:
    at = f"/v1/cidrs/{topology.POD_CIDR}"
    lab.api("PATCH", at, {"probe": f"tcp:{topology.PODS['pod1']}:80"})
    block = f"ip route {{0}} blackhole {topology.PODS['pod1']}/32"
    lab["node"].shell(block.format("add"))
    try:
        screen(lab, topology.POD_CIDR, "no answer from tcp:", step="probe target")
    finally:
        lab["node"].shell(block.format("del"))
    well(lab)


def test_somebody_keeps_switching_ip_forward_off(lab: Lab) -> None:
    stop = lab.directory / "enough"
    loop = f"until [ -e {stop} ]; do echo 0 > /proc/sys/net/ipv4/ip_forward; sleep 0.05; done"
    lab.start("appliance", "meddler", "sh", "-c", loop)
    try:
        screen(lab, "DEGRADED: somebody keeps changing", "ip_forward", step="sysctl.d")
    finally:
        stop.touch()
        lab.processes.pop("meddler").wait(10)
        stop.unlink()
    well(lab)
