"""The virtual router moves real packets as its route tables say, in network namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

WORLD = """
region = "cn-shenzhen"
settle_ms = 100
[listen]
api = "100.100.0.10:80"
metadata = "100.100.100.200:80"
[[access_key]]
id = "LTAI-example"
secret = "example-secret"
[vpc]
id = "vpc-sz"
cidr = "172.18.0.0/16"
[[route_table]]
id = "vtb-system"
type = "System"
[[route_table]]
id = "vtb-other"
[[vswitch]]
id = "vsw-hosts"
cidr = "172.18.1.0/24"
zone = "cn-shenzhen-a"
table = "vtb-system"
interface = "hosts0"
[[vswitch]]
id = "vsw-router"
cidr = "172.18.2.0/24"
zone = "cn-shenzhen-a"
table = "vtb-other"
interface = "router0"
[[instance]]
id = "i-host"
ip = "172.18.1.5"
vswitch = "vsw-hosts"
eni = "eni-host"
mac = "00:16:3e:00:01:05"
[[instance]]
id = "i-nexthop"
ip = "172.18.2.10"
vswitch = "vsw-router"
eni = "eni-nexthop"
mac = "00:16:3e:00:02:10"
eip = "198.51.100.10"
[router]
kernel = true
internet_interface = "wan0"
internet_gateway = "198.51.100.1"
"""

CALL = """
import json, sys, time, urllib.error, urllib.parse, urllib.request, uuid
from cloud.emulator.signature import sign
params = json.loads(sys.argv[1]) | {
    "Version": "2016-04-28", "Format": "JSON", "RegionId": "cn-shenzhen", "AccessKeyId": "LTAI-example",
    "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0", "SignatureNonce": uuid.uuid4().hex,
    "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
}
params["Signature"] = sign("GET", params, "example-secret")
try:
    print(urllib.request.urlopen("http://100.100.0.10/?" + urllib.parse.urlencode(params), timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
"""


class Place:
    """One network namespace."""

    def __init__(self, name: str) -> None:
        self.name = f"nh-{name}-{os.getpid()}"

    def run(self, *command: str, check: bool = True) -> str:
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.run(inside, check=check, text=True, stdout=subprocess.PIPE).stdout

    def ping(self, address: str) -> str:
        return self.run("ping", "-n", "-c", "1", "-W", "1", address, check=False)

    def reaches(self, address: str) -> bool:
        """Tell whether it answers, in the end: a fresh veth may take a second to carry (net/core/link_watch.c)."""
        return any(" 0% packet loss" in self.ping(address) for _ in range(5))

    def hears_nothing_of(self, address: str) -> bool:
        answer = self.ping(address)
        return "100% packet loss" in answer and "From" not in answer and "errors" not in answer

    def call(self, action: str, **params: str) -> dict[str, object]:
        answer = json.loads(self.run(sys.executable, "-c", CALL, json.dumps(params | {"Action": action})))
        assert isinstance(answer, dict)
        return answer

    def kernel_state(self) -> tuple[str, ...]:
        names = ("all", "hosts0", "router0", "wan0")
        return (
            self.run("ip", "rule"),
            self.run("ip", "-4", "route", "show", "table", "all"),
            self.run("ip", "-o", "-4", "address"),
            self.run("nft", "list", "ruleset"),
            self.run("sysctl", "net.ipv4.ip_forward", *(f"net.ipv4.conf.{name}.rp_filter" for name in names)),
            self.run("sysctl", *(f"net.ipv4.conf.{name}.send_redirects" for name in names)),
        )


ROUTER, HOST, APPLIANCE, WAN = map(Place, ("router", "host", "app", "wan"))


@pytest.fixture
def places() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    ours = (ROUTER, HOST, APPLIANCE, WAN)
    with contextlib.ExitStack() as stack:
        for place in ours:
            subprocess.run(["ip", "netns", "add", place.name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", place.name], check=True)
            place.run("ip", "link", "set", "lo", "up")
        for place, interface, here, there in (
            (HOST, "hosts0", "172.18.1.253/24", "172.18.1.5/24"),
            (APPLIANCE, "router0", "172.18.2.253/24", "172.18.2.10/24"),
            (WAN, "wan0", "198.51.100.2/24", "198.51.100.1/24"),
        ):
            ROUTER.run(*f"ip link add {interface} type veth peer name eth0 netns {place.name}".split())
            ROUTER.run("ip", "address", "add", here, "dev", interface)
            ROUTER.run("ip", "link", "set", interface, "up")
            place.run("ip", "address", "add", there, "dev", "eth0")
            place.run("ip", "link", "set", "eth0", "up")
        ROUTER.run(*["ip", "address", "add", "100.100.0.10/32", "dev", "lo"])
        ROUTER.run(*["ip", "address", "add", "100.100.100.200/32", "dev", "lo"])
        HOST.run(*["ip", "route", "add", "default", "via", "172.18.1.253"])
        APPLIANCE.run(*["ip", "route", "add", "default", "via", "172.18.2.253"])
        APPLIANCE.run(*["ip", "address", "add", "10.244.1.20/32", "dev", "lo"])
        WAN.run(*["ip", "address", "add", "203.0.113.10/32", "dev", "lo"])
        WAN.run(*["ip", "route", "add", "172.18.0.0/16", "via", "198.51.100.2"])
        yield


@contextlib.contextmanager
def emulator(folder: Path) -> Iterator[subprocess.Popen[str]]:
    config = folder / "world.toml"
    config.write_text(WORLD)
    command = ["ip", "netns", "exec", ROUTER.name, sys.executable, "-m", "cloud.emulator", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if " ready " in line:
                    break
            assert " ready " in said[-1], "".join(said)
            yield process
        finally:
            process.kill()


def available(table: str) -> bool:
    answer = HOST.call("DescribeRouteEntryList", RouteTableId=table, RouteEntryType="Custom")
    return '"Available"' in json.dumps(answer)


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not (callable(condition) and condition()):
        assert time.monotonic() < deadline, "gave up waiting"


def test_packets_follow_the_route_tables_and_the_namespace_is_left_as_it_was(places: None, tmp_path: Path) -> None:
    before = ROUTER.kernel_state()
    with emulator(tmp_path) as process:
        # The system's entries, and nothing else.
        assert HOST.reaches("172.18.2.10")
        assert HOST.hears_nothing_of("10.244.1.20")
        # An instance with an EIP has a way out and in; others have none, and nobody gets in beside it.
        assert APPLIANCE.reaches("203.0.113.10")
        assert WAN.reaches("198.51.100.10")
        assert HOST.hears_nothing_of("203.0.113.10")
        assert WAN.hears_nothing_of("172.18.1.5")
        # Metadata knows the asker.
        url = "http://100.100.100.200/latest/meta-data/instance-id"
        fetch = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
        assert APPLIANCE.run(sys.executable, "-c", fetch).strip() == "i-nexthop"
        assert HOST.run(sys.executable, "-c", fetch).strip() == "i-host"
        # An entry moves packets, of the vSwitches that use its table, and only while it is there.
        wanted = {"RouteTableId": "vtb-other", "DestinationCidrBlock": "10.244.0.0/16", "NextHopId": "i-nexthop"}
        assert "RouteEntryId" in HOST.call("CreateRouteEntry", **wanted)
        until(lambda: available("vtb-other"))
        assert HOST.hears_nothing_of("10.244.1.20")
        created = HOST.call("CreateRouteEntry", **wanted | {"RouteTableId": "vtb-system"})
        until(lambda: available("vtb-system"))
        assert HOST.reaches("10.244.1.20")
        # Its next hop is changed in place, and back.
        entry = str(created["RouteEntryId"])
        HOST.call("ModifyRouteEntry", RouteEntryId=entry, NewNextHopId="i-host", NewNextHopType="Instance")
        until(lambda: available("vtb-system"))
        assert not HOST.reaches("10.244.1.20")
        HOST.call("ModifyRouteEntry", RouteEntryId=entry, NewNextHopId="i-nexthop", NewNextHopType="Instance")
        until(lambda: available("vtb-system"))
        assert HOST.reaches("10.244.1.20")
        HOST.call("DeleteRouteEntry", RouteEntryId=entry)
        until(lambda: not available("vtb-system"))
        until(lambda: HOST.hears_nothing_of("10.244.1.20"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert ROUTER.kernel_state() == before


def test_what_a_killed_router_left_is_cleared_by_the_next(places: None, tmp_path: Path) -> None:
    before = ROUTER.kernel_state()[:2]
    with emulator(tmp_path) as process:
        process.kill()
        process.wait()
    assert ROUTER.kernel_state()[:2] != before
    with emulator(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    rules, routes = ROUTER.kernel_state()[:2]
    assert rules == before[0]
    assert "table 1000" not in routes
