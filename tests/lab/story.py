"""What the demo shows, as checks: each does one thing in the lab, raises `Failed` if it does not hold, and returns its
figure. The tests in test_first_light.py tell the same story in smaller pieces.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from api.client import Failed as CallFailed
from tests.lab import probes, topology
from tests.lab.programs import INSTANCE, LINK, MORE_TABLE, TABLE
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.lab import Lab

CIDRS: Final = (topology.POD_CIDR, topology.SERVICE_CIDR)
_FOR_THE_CIDRS: Final = " or ".join(f"dst net {cidr}" for cidr in (*CIDRS, topology.TUNNEL))
_FIRST_ANSWER_MS: Final = 100.0


@dataclass(slots=True)
class Story:
    """The demo's steps, in order, and what it shows at the end beside their figures."""

    lab: Lab
    table: tuple[dict[str, str], ...] = ()
    status: str = ""
    address: str = ""
    begun: float = field(default_factory=time.monotonic)

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield each step's name and its check."""
        yield "start pods, cloud, gtund and nexthopd", self.start
        yield "nobody in Hong Kong knows the tunnel's addresses", lambda: nobody_knows_the_tunnel(self.lab)
        yield "before: host1 does not reach a pod", self.nothing_answers
        yield "join the link with a token from gtund", self.join
        yield "add both CIDRs through the REST API", self.add
        for pod, address in topology.PODS.items():
            yield f"host1: ping {address} ({pod})", lambda to=address: f"{self._ping('host1', to):.2f} ms"  # type: ignore[misc]
        yield f"host2: ping {topology.PODS['pod1']}", lambda: f"{self._ping('host2', topology.PODS['pod1']):.2f} ms"
        yield f"host1: traceroute {topology.PODS['pod1']}", self.trace
        for pod, address in topology.PODS.items():
            yield f"host1: curl http://{address} ({pod})", lambda to=address: self._curl(to)  # type: ignore[misc]
        yield f"host1: curl http://{topology.SERVICE} (the service)", self.service
        yield "host1: ping -M do -s 1472", self.full_size
        yield "host1: one packet of IP protocol 253", self.other_protocol
        yield "the cloud's API lists both route entries", self.listed
        yield "nexthop status says OK", self.healthy
        yield "kill gtun with SIGKILL: the first packet is answered", self.tunnel_dies
        yield "gtun is started again: all comes back by itself", self.tunnel_returns
        yield "remove both CIDRs: entries and routes are gone", self.remove
        yield "not one packet for them reaches the appliance", self.nothing_arrives

    # ---- up -----------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start all programs but gtun, which comes with its link."""
        begin = time.monotonic()
        self.lab.start_all()
        return f"{len(self.lab.processes)} programs, {time.monotonic() - begin:.1f} s"

    def nothing_answers(self) -> str:
        """See that the virtual router drops what it has no route for, and says nothing."""
        probes.silence(self.lab["host1"], topology.PODS["pod1"])
        return "silence"

    def join(self) -> str:
        """Hand a join token to the appliance by standard input."""
        begin = time.monotonic()
        self.lab.join()
        self.address = self.lab.link()["address"]
        return f"{self.address}, up after {time.monotonic() - begin:.1f} s"

    def add(self) -> str:
        """Add both CIDRs; wait until kernel and cloud have followed."""
        begin = time.monotonic()
        add_cidrs(self.lab)
        return f"kernel and cloud after {time.monotonic() - begin:.1f} s"

    def trace(self) -> str:
        """See that the far end of the tunnel shows itself, as in the seed."""
        hops = probes.traceroute(self.lab["host1"], topology.PODS["pod1"])
        if topology.TUNNEL_GATEWAY not in hops:
            raise Failed(f"{topology.TUNNEL_GATEWAY} is not among the hops {hops}")
        return f"{len(hops)} hops, {topology.TUNNEL_GATEWAY} is number {hops.index(topology.TUNNEL_GATEWAY) + 1}"

    def service(self) -> str:
        """Fetch through the service address until every pod has served."""
        pods: set[str] = set()
        for tries in range(1, 61):
            pods.add(probes.curl(self.lab["host1"], topology.SERVICE).pod)
            if len(pods) == len(topology.PODS):
                return f"200, all {len(pods)} pods within {tries} requests"
        raise Failed(f"60 requests to the service reached only {sorted(pods)}")

    def full_size(self) -> str:
        """Pass a packet of 1500 bytes that must not be fragmented."""
        return f"{probes.ping(self.lab['host1'], topology.PODS['pod1'], count=2, size=1472, df=True):.2f} ms"

    def other_protocol(self) -> str:
        """Pass what is neither TCP, UDP nor ICMP, and its answer."""
        host, pod = self.lab["host1"], self.lab["pod2"]
        return f"answered after {probes.raw_protocol(host, pod, topology.PODS['pod2']):.2f} ms"

    def listed(self) -> str:
        """Ask the cloud itself."""
        self.table = self.lab.cloud_table()
        for cidr in CIDRS:
            found = [entry for entry in self.table if entry["destination"] == cidr]
            told = [(entry["table"], entry["next_hop"], entry["status"]) for entry in found]
            if sorted(told) != sorted((table, INSTANCE, "Available") for table in (TABLE, MORE_TABLE)):
                raise Failed(f"the route table has {found} for {cidr}")
        return f"next hop {INSTANCE}"

    def healthy(self) -> str:
        """Ask the operator's command; any verdict but OK exits with 1."""
        self.status = self.lab.nexthop("status").stdout
        return self.status.splitlines()[0]

    # ---- the tunnel dies and returns ----------------------------------------------------------------------------

    def tunnel_dies(self) -> str:
        """Kill gtun, hold its restart, and see that hosts are told at once while nothing leaves the wrong way."""
        host, appliance = self.lab["host1"], self.lab["appliance"]
        with probes.Capture.open(appliance, "eth0", _FOR_THE_CIDRS) as capture:
            self.lab.kill("appliance", f"gtun@{LINK}", hold=True)
            first = [probes.unreachable(self.lab[each], topology.PODS["pod1"]) for each in topology.HOSTS]
            host.run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", topology.PODS["pod2"], check=False)
            host.run("curl", "-s", "-m", "1", f"http://{topology.SERVICE}/", check=False)
            frames = capture.frames(host, topology.APPLIANCE)
        leaked = probes.sent_by(frames, topology.MAC["appliance"])
        if leaked or not frames:
            raise Failed(f"{len(leaked)} of {len(frames)} packets left the appliance again: {leaked[:3]}")
        slowest = max(each.after_ms for each in first)
        if {each.sender for each in first} != {topology.APPLIANCE} or slowest > _FIRST_ANSWER_MS:
            raise Failed(f"a host's first packet was answered late or by somebody else: {first}")
        return f"each host has an ICMP unreachable within {slowest:.2f} ms; {len(frames)} packets came in, 0 leaked"

    def tunnel_returns(self) -> str:
        """Let systemd's part start gtun again; nobody else does anything."""
        writes = cloud_writes(self.lab)
        begin = time.monotonic()
        self.lab.let_go("appliance", f"gtun@{LINK}")
        self.lab.wait("the link", lambda: self.lab.link()["state"] == "up")
        host = self.lab["host1"]
        self.lab.wait("ping", lambda: not host.run("ping", "-c1", "-W1", topology.PODS["pod1"], check=False).returncode)
        seconds = time.monotonic() - begin
        address = self.lab.link()["address"]
        if address != self.address:
            raise Failed(f"the link came back with {address}, and had {self.address}")
        for cidr in CIDRS:
            if not kernel_routes(self.lab, cidr):
                raise Failed(f"the route to {cidr} did not come back")
        self.listed()
        if (more := cloud_writes(self.lab) - writes) != 0:
            raise Failed(f"the cloud was sent {more} writes, and nothing had changed there")
        return f"after {seconds:.1f} s, same address, 0 writes to the cloud"

    # ---- down ---------------------------------------------------------------------------------------------------

    def remove(self) -> str:
        """Remove both CIDRs through the API and wait until they are gone everywhere."""
        begin = time.monotonic()
        remove_cidrs(self.lab)
        left = [entry for entry in self.lab.cloud_table() if entry["destination"] in CIDRS]
        routes = [route for cidr in CIDRS for route in kernel_routes(self.lab, cidr)]
        if left or routes:
            raise Failed(f"still there: {left} {routes}")
        return f"after {time.monotonic() - begin:.1f} s"

    def nothing_arrives(self) -> str:
        """See that the cloud sends us nothing any more, and drops it silently."""
        expression = " or ".join(f"net {cidr}" for cidr in CIDRS)
        with probes.Capture.open(self.lab["appliance"], "eth0", expression) as capture:
            for host in topology.HOSTS:
                for address in (topology.PODS["pod1"], topology.SERVICE):
                    probes.silence(self.lab[host], address)
            frames = capture.frames(self.lab["host1"], topology.APPLIANCE)
        if frames:
            raise Failed(f"{len(frames)} packets arrived: {frames[:3]}")
        return "0 packets"

    def _ping(self, host: str, address: str) -> float:
        return probes.ping(self.lab[host], address)

    def _curl(self, address: str) -> str:
        page = probes.curl(self.lab["host1"], address)
        if topology.PODS[page.pod] != address:
            raise Failed(f"{address} was answered by {page.pod}")
        return f"{page.status} in {page.seconds * 1e3:.1f} ms"


def add_cidrs(lab: Lab) -> None:
    """Add both CIDRs and wait until every layer says ok."""
    for cidr in CIDRS:
        lab.api("POST", "/v1/cidrs", {"cidr": cidr, "via": LINK})
    for cidr in CIDRS:
        lab.wait(f"kernel and cloud to carry {cidr}", lambda cidr=cidr: _layers(lab, cidr) == {"ok"})  # type: ignore[misc]


def remove_cidrs(lab: Lab) -> None:
    """Remove both CIDRs and wait until the API knows them no more."""
    for cidr in CIDRS:
        lab.api("DELETE", f"/v1/cidrs/{cidr}")
    lab.wait("the CIDRs to be gone", lambda: not lab.api("GET", "/v1/cidrs")["cidrs"])


def _layers(lab: Lab, cidr: str) -> set[str]:
    try:
        resource = lab.api("GET", f"/v1/cidrs/{cidr}")
    except CallFailed:
        return set()
    return {layer["state"] for layer in resource["layers"].values()}


def nobody_knows_the_tunnel(lab: Lab) -> str:
    """See that no machine behind gtund has a route to the tunnel's addresses."""
    machines = ("hkrouter", "node", *topology.PODS)
    tunnel = ip_network(topology.TUNNEL)
    for machine in machines:
        for route in json.loads(lab[machine].shell("ip -j -4 route show table all")):
            destination = route["dst"]
            if destination != "default" and ip_network(destination).overlaps(tunnel):
                raise Failed(f"{machine} has a route to {destination}")
    return f"{len(machines)} machines"


def kernel_routes(lab: Lab, cidr: str) -> list[dict[str, object]]:
    """Return the appliance's kernel routes to exactly this CIDR."""
    return list(json.loads(lab["appliance"].shell(f"ip -j route show table all exact {cidr}") or "[]"))


def cloud_writes(lab: Lab) -> int:
    """Return how many writes the cloud's API was sent so far."""
    calls = json.loads(lab["appliance"].shell(f"curl -sS http://{topology.CLOUD_API}/_emulator/calls"))
    return sum(call["write"] for call in calls["calls"])
