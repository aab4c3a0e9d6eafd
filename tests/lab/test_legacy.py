"""The protocol of gtun 2.0.2 in the two networks: our client, our server, and the originals' own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from appliance.tunnel.legacy import WARNING
from tests.lab import probes, topology
from tests.lab.lab import Lab
from tests.lab.space import PYTHON, Space

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

KEY = "gtun-cs-token"
LINK = "old"
POD = topology.PODS["pod1"]

SERVER = f"""\
name="us-node-1-1"

[server]
listen=":9623"
auth_key="{KEY}"
nameservers=["8.8.8.8", "8.8.4.4"]

[dhcp]
cidr="{topology.TUNNEL_GATEWAY}/24"
gateway="{topology.TUNNEL_GATEWAY}"
nameserver="8.8.8.8"

[log]
level="debug"
path="log.log"
days=3
"""


OCCUPY = """
import socket, sys, time
from appliance.tunnel.legacy.message import HEARTBEAT, Authorize
line = socket.create_connection((sys.argv[1], 9623))
line.sendall(Authorize(sys.argv[2]).encode())
while line.recv(4096):
    line.sendall(HEARTBEAT)
    time.sleep(1)
"""


MOVE = """
import subprocess, time
from ipaddress import IPv4Interface
from appliance.tunnel import tun
device = tun.attach("tun-move", large=False)
for address in "100.64.249.50/24", "100.64.249.77/24":
    tun.configure("tun-move", tun.Addressing(IPv4Interface(address), None, 1500, "a test"))
    while b"192.0.2.0" not in subprocess.run(["ip", "route"], capture_output=True).stdout:
        time.sleep(0.01)
time.sleep(60)
"""


def client(server: str, key: str = KEY) -> str:
    """Return a client's file, as the originals have it."""
    return f'[client]\nserver="{server}"\nauth="{key}"\n\n[log]\nlevel="debug"\npath="log.log"\ndays=3\n'


def gtund(place: Path) -> tuple[str, ...]:
    """Return the legacy server's command line."""
    return (
        *(*PYTHON, "appliance.tunnel.gtund", "legacy", "--config", f"{place}/gtund.toml", "--run", f"{place}/run"),
        *("--serve", topology.POD_CIDR, topology.SERVICE_CIDR),
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a lab in which hosts reach the pods over a legacy link. Who uses it leaves it so."""
    with Lab.open() as lab:
        lab.start_pods()
        lab.start_cloud()
        place = lab.place("gtund")
        (place / "gtund.toml").write_text(SERVER)
        (place / "units.json").write_text(json.dumps({"units": {"gtund": {"argv": gtund(place)}}}))
        lab._supervise("gtund")
        lab.wait("gtund", (place / "run" / "legacy.sock").exists)
        lab.start_appliance()
        speak_legacy(lab)
        add_link(lab, LINK)
        lab.wait("the link", lambda: lab.link(LINK)["state"] == "up")
        for cidr in (topology.POD_CIDR, topology.SERVICE_CIDR):
            lab.nexthop("cidr", "add", cidr, "--via", LINK)
        yield lab


def speak_legacy(lab: Lab) -> None:
    """Have every link of the appliance started as a legacy one, as a unit file of the operator's would."""
    units = lab.place("appliance") / "units.json"
    fresh = units.with_suffix(".new")
    fresh.write_text(units.read_text().replace('"--config",\n   "{path}"', '"--legacy",\n   "{path}"'))
    assert "--legacy" in fresh.read_text()
    fresh.replace(units)


def add_link(lab: Lab, name: str, key: str = KEY) -> None:
    links = lab.place("appliance") / "state" / "links"
    links.mkdir(parents=True, exist_ok=True)
    (links / f"{name}.toml").write_text(client(f"{topology.GTUND_EIP}:9623", key))


def told(lab: Lab, machine: str, path: str) -> dict[str, Any]:
    """Return what a control socket says."""
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.makefile().read())"
    done = lab[machine].run(*PYTHON[:1], "-c", script, str(lab.place(machine) / path))
    return dict(json.loads(done.stdout))


def routes(machine: Space, device: str) -> set[str]:
    """Return where routes over a device lead to, there being some."""
    found = {route["dst"] for route in json.loads(machine.shell(f"ip -json route show dev {device}"))}
    assert found
    return found


@pytest.mark.parametrize("pod", topology.PODS)
def test_a_host_pings_every_pod_and_fetches_its_page(lab: Lab, pod: str) -> None:
    probes.ping(lab["host1"], topology.PODS[pod], count=1)
    assert probes.curl(lab["host1"], topology.PODS[pod]).pod == pod


def test_the_service_answers(lab: Lab) -> None:
    assert probes.curl(lab["host2"], topology.SERVICE).pod in topology.PODS


def test_the_tunnels_far_end_is_among_the_hops(lab: Lab) -> None:
    assert topology.TUNNEL_GATEWAY in probes.traceroute(lab["host1"], POD)


def test_a_full_packet_passes_unfragmented(lab: Lab) -> None:
    probes.ping(lab["host1"], POD, count=1, size=1472, df=True)


def test_both_ends_say_that_nothing_is_encrypted(lab: Lab) -> None:
    assert lab.link(LINK)["reason"] == WARNING
    for machine, path, log in (
        ("appliance", f"run/links/{LINK}.sock", f"gtun@{LINK}"),
        ("gtund", "run/legacy.sock", "gtund"),
    ):
        report = told(lab, machine, path)
        assert (report["encrypted"], report["warning"]) == (False, WARNING)
        assert WARNING in (lab.place(machine) / "log" / f"{log}.log").read_text()


@pytest.mark.parametrize(("machine", "unit"), [("appliance", f"gtun@{LINK}"), ("gtund", "gtund")])
def test_a_killed_end_comes_back_and_with_it_the_traffic(lab: Lab, machine: str, unit: str) -> None:
    before = lab.unit(machine, unit).starts
    since = lab.link(LINK)["since"]
    before_routes = routes(lab["appliance"], f"tun-{LINK}")
    lab.kill(machine, unit)
    lab.wait(f"another {unit}", lambda: lab.unit(machine, unit).starts > before)
    lab.wait("the link", lambda: lab.link(LINK)["state"] == "up" and lab.link(LINK)["since"] != since)
    assert routes(lab["appliance"], f"tun-{LINK}") == before_routes
    probes.ping(lab["host1"], POD, count=1)
    assert probes.curl(lab["host1"], POD).status == 200


def test_another_address_comes_without_a_route_being_lost(lab: Lab) -> None:
    def clients() -> dict[str, Any]:
        return dict(told(lab, "gtund", "run/legacy.sock")["clients"])

    before, device = lab.link(LINK)["address"], f"tun-{LINK}"
    lab.kill("appliance", f"gtun@{LINK}", hold=True)
    lab.wait("the client to be gone", lambda: not clients())
    occupant = lab["appliance"].start("occupant", *PYTHON[:1], "-c", OCCUPY, topology.GTUND_EIP, KEY)
    try:
        lab.wait("the address to be another's", clients)
        before_routes = routes(lab["appliance"], device)
        lab.let_go("appliance", f"gtun@{LINK}")
        lab.wait("the link", lambda: lab.link(LINK)["state"] == "up" and lab.link(LINK)["address"] != before)
        addresses = json.loads(lab["appliance"].shell(f"ip -json -4 address show dev {device}"))[0]["addr_info"]
        assert [f"{info['local']}/{info['prefixlen']}" for info in addresses] == [lab.link(LINK)["address"]]
        assert routes(lab["appliance"], device) == before_routes
        probes.ping(lab["host1"], POD, count=1)
    finally:
        occupant.kill()
        occupant.wait()


def test_a_device_gets_another_address_of_its_subnet_and_keeps_every_route(lab: Lab) -> None:
    """Where nobody else puts routes back: with the kernel's defaults the new address would go with the old one."""
    machine = lab["node"]
    process = machine.start("mover", *PYTHON[:1], "-c", MOVE)
    try:
        lab.wait("the first address", lambda: "100.64.249.50/24" in machine.shell("ip -o address"))
        machine.shell("ip route add 192.0.2.0/24 dev tun-move")
        lab.wait("the second", lambda: "100.64.249.50/24" not in machine.shell("ip -o address"))
        assert "100.64.249.77/24" in machine.shell("ip -o address show dev tun-move")
        assert routes(machine, "tun-move") == {"100.64.249.0/24", "192.0.2.0/24"}
    finally:
        process.kill()
        process.wait()
        machine.shell("ip link delete tun-move")


def test_a_wrong_key_is_noticed_and_told(lab: Lab) -> None:
    add_link(lab, "wrong", "not-the-key")
    try:
        lab.wait("the link to be refused", lambda: lab.link("wrong")["code"] == "denied")
        log = lab.place("appliance") / "log" / "gtun@wrong.log"
        lab.wait("another try", lambda: log.read_text().count("is down") >= 3)
        link = lab.link("wrong")
        assert link["state"] == "down"
        assert "refuses the key" in link["reason"]
        assert "not-the-key" not in log.read_text()
        assert lab.link(LINK)["state"] == "up"
    finally:
        (lab.place("appliance") / "state" / "links" / "wrong.toml").unlink()


def test_a_client_reaches_neither_the_servers_machine_nor_what_is_not_served(lab: Lab) -> None:
    not_served, itself = "172.31.2.10", topology.GTUND
    lab["gtund"].run("ping", "-c1", not_served)
    for address in (not_served, itself):
        lab["appliance"].shell(f"ip route add {address}/32 dev tun-{LINK}")
        try:
            probes.silence(lab["appliance"], address)
        finally:
            lab["appliance"].shell(f"ip route delete {address}/32 dev tun-{LINK}")
    probes.ping(lab["appliance"], topology.TUNNEL_GATEWAY, count=1)


def test_an_inner_source_that_is_not_the_clients_is_dropped_and_counted(lab: Lab) -> None:
    def dropped() -> int:
        clients = told(lab, "gtund", "run/legacy.sock")["clients"].values()
        return sum(client["counters"].get("drop_source", 0) for client in clients)

    before = dropped()
    lab["appliance"].shell("ip address add 100.64.240.222/32 dev tun-old")
    try:
        lab["appliance"].run("ping", "-c1", "-W1", "-I", "100.64.240.222", topology.TUNNEL_GATEWAY, check=False)
        lab.wait("the count", lambda: dropped() > before)
    finally:
        lab["appliance"].shell("ip address delete 100.64.240.222/32 dev tun-old")


def test_two_clients_reach_each_other_by_way_of_the_servers_kernel(lab: Lab) -> None:
    place = lab.place("node")
    (place / "second.toml").write_text(client(f"{topology.GTUND}:9623"))
    argv = ("--legacy", f"{place}/second.toml", "--control", f"{place}/second.sock")
    process = lab["node"].start("gtun-second", *PYTHON, "appliance.tunnel.gtun", *argv)
    try:
        lab.wait("its socket", (place / "second.sock").exists)
        lab.wait("the second link", lambda: told(lab, "node", "second.sock")["state"] == "up")
        probes.ping(lab["appliance"], told(lab, "node", "second.sock")["address"].split("/")[0], count=3)
    finally:
        process.terminate()
        assert process.wait(10) == 0
        lab["node"].shell("ip link delete tun-second")


def test_a_pool_that_the_machine_uses_already_is_refused(lab: Lab) -> None:
    place = lab.place("wan")
    (place / "gtund.toml").write_text(SERVER)
    lab["wan"].shell("ip route add unreachable 100.64.240.0/24 metric 4000")  # what our own gtund leaves
    done = lab["wan"].run(*gtund(place), check=False)
    assert done.returncode == 2
    assert "[dhcp] cidr = 100.64.240.0/24 is in use here" in done.stderr


def test_purge_leaves_nothing_of_it(lab: Lab) -> None:
    place = lab.place("purged")
    (place / "gtund.toml").write_text(SERVER.replace("100.64.240", "100.64.242"))
    machine = lab["hkrouter"]
    before = machine.shell("nft list tables; ip -o link | cut -d: -f2; ip route")
    process = machine.start("gtund-purged", *gtund(place))
    lab.wait("it", (place / "run" / "legacy.sock").exists)
    process.terminate()
    assert process.wait(10) == 0
    assert "gtund-legacy" in machine.shell("ip -o link")
    machine.run(*PYTHON, "appliance.tunnel.gtund", "legacy", "--config", f"{place}/gtund.toml", "--purge")
    assert machine.shell("nft list tables; ip -o link | cut -d: -f2; ip route") == before
