"""A client that means harm, and somebody on the line: what they send is dropped and counted, and traffic goes on."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from appliance.tunnel import frame, token
from tests.lab import probes, six, topology
from tests.lab.lab import Lab
from tests.lab.programs import LINK, gtund, nexthop_toml
from tests.lab.space import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lab

CLIENT = "shenzhen"
DEVICE = f"tun-{LINK}"
BEHIND = "172.18.0.0/16"
SPEAKS = "nexthopd is there"  # what nexthop-forward logs once it is heard
POD = topology.PODS["pod1"]
WIDE = "100.100.0.0/16"  # it covers the metadata address: served all the same, but for that


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a lab with a link that carries both versions. Who uses it leaves it so."""
    with Lab.open() as lab:
        six.build(lab)
        lab.start_pods()
        lab.start_cloud()
        lab.start_gtund(six.POD_CIDR, WIDE, listen="[::]")
        lab.start_appliance()
        lab.join(LINK, CLIENT, "--prefix", BEHIND)
        lab.nexthop("cidr", "add", topology.POD_CIDR, "--via", LINK)
        lab.api("POST", "/v1/cidrs", {"cidr": six.POD_CIDR, "via": LINK})
        # The VPC has no IPv6, so the cloud refuses the entry for ever; the virtual router's route is `six`'s.
        lab.wait("the kernel to carry it", lambda: _layers(lab, six.POD_CIDR)["kernel"]["state"] == "ok")
        probes.ping(lab["host1"], POD, count=1)
        yield lab


def _layers(lab: Lab, cidr: str) -> dict[str, dict[str, str]]:
    return dict(lab.api("GET", f"/v1/cidrs/{quote(cidr, safe='/')}")["layers"])


def told(path: Path) -> dict[str, Any]:
    """Return what a control socket says."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.shutdown(socket.SHUT_WR)
        return dict(json.loads(sock.makefile().read()))


def counted(lab: Lab, reason: str) -> int:
    """Return how often gtund dropped a packet of the client's for this reason."""
    client = told(lab.place("gtund") / "run" / "gtund.sock")["clients"][CLIENT]
    return int(client["counters"].get(reason, 0))


def link(lab: Lab, name: str = LINK) -> dict[str, Any]:
    """Return what gtun says of a link."""
    return told(lab.place("appliance") / "run" / "links" / f"{name}.sock")


def udp(source: str, destination: str, port: int = 9) -> str:
    """Return a UDP packet, as hex."""
    one, other = ip_address(source), ip_address(destination)
    body = struct.pack("!HHHH", 5000, port, 12, 0) + b"evil"
    if one.version == 6:
        return (struct.pack("!IHBB", 6 << 28, len(body), 17, 64) + one.packed + other.packed + body).hex()
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0, one.packed, other.packed)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return (header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:] + body).hex()


def inject(lab: Lab, *packets: str) -> None:
    lab["appliance"].run(*PYTHON, "tests.lab.hostile", "inject", DEVICE, *packets)


def address(lab: Lab, version: int) -> str:
    """Return the client's own address in the tunnel."""
    listed = json.loads(lab["appliance"].shell(f"ip -json -{version} address show dev {DEVICE} scope global"))
    return str(listed[0]["addr_info"][0]["local"])


@contextlib.contextmanager
def on_the_line(lab: Lab, what: str) -> Iterator[None]:
    """Let somebody on the WAN add their own to what passes."""
    command = (*PYTHON, "tests.lab.hostile", "line", what, topology.GTUND_EIP)
    process = lab["wan"].start("line", *command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("rp_filter", [0, 2])
def test_a_spoofed_inner_source_is_dropped_and_counted_whatever_rp_filter_is(lab: Lab, rp_filter: int) -> None:
    lab["gtund"].shell(f"echo {rp_filter} > /proc/sys/net/ipv4/conf/all/rp_filter")
    before = counted(lab, "drop_source")
    with probes.Capture.open(lab["pod1"], "eth0", "udp port 9") as capture:
        inject(lab, udp("100.64.240.99", POD), udp("172.31.1.10", POD), udp("fd00:18:1::10", six.POD))
        lab.wait("them to be counted", lambda: counted(lab, "drop_source") >= before + 3)
        assert not capture.frames(lab["host1"], POD)


@pytest.mark.iptables
def test_a_source_behind_the_client_may_send_and_is_answered(lab: Lab) -> None:
    lab.api("PATCH", f"/v1/cidrs/{topology.POD_CIDR}", {"snat": False})
    try:
        plain = f"--match-set nexthop4-{DEVICE}-p dst"
        lab.wait("no SNAT", lambda: plain in lab["appliance"].shell("iptables-legacy-save -t filter"))
        with probes.Capture.open(lab["gtund"], f"gt-{CLIENT}", f"src {topology.HOSTS['host1']} and icmp") as capture:
            probes.ping(lab["host1"], POD, count=1)
            assert capture.frames(lab["host1"], POD)
        assert probes.curl(lab["host1"], POD).pod == "pod1"
        told_by = json.loads(lab["gtund"].shell(f"ip -json route get {topology.HOSTS['host1']}"))
        assert told_by[0]["dev"] == f"gt-{CLIENT}"
    finally:
        lab.api("PATCH", f"/v1/cidrs/{topology.POD_CIDR}", {"snat": True})


@contextlib.contextmanager
def configured(lab: Lab, **settings: Any) -> Iterator[None]:
    """Let nexthop-forward begin anew with another nexthop.toml, and with the usual one afterwards."""
    place = lab.place("appliance")
    log = place / "log" / "nexthop-forward.log"

    def begin_with(text: str) -> None:
        before = log.read_text().count(SPEAKS)
        (place / "nexthop.toml").write_text(text)
        lab.kill("appliance", "nexthop-forward")
        lab.wait("a new one", lambda: log.read_text().count(SPEAKS) > before)
        lab.wait("it to carry", lambda: _layers(lab, topology.POD_CIDR)["kernel"]["state"] == "ok")

    begin_with(nexthop_toml(place, **settings))
    try:
        yield
    finally:
        begin_with(nexthop_toml(place))


@pytest.mark.parametrize("firewall", ["iptables", "nftables"])
def test_a_far_end_begins_connections_to_the_vpc_only_where_its_link_may_and_never_to_the_appliance(
    lab: Lab, firewall: str
) -> None:
    """Its networks are routed to the client (`--prefix`); whether they are let in is the appliance's to say."""
    host, far, appliance = topology.HOSTS["host1"], lab["gtund"], lab["appliance"]

    def asks(name: str, target: str, port: int = 80) -> bool:
        fetch = ("curl", "-sS", "-m", "0.5", "-o", "/dev/null", f"http://{target}:{port}/")
        return lab[name].run(*fetch, check=False).returncode == 0

    def listening(name: str) -> subprocess.Popen[str]:
        return lab[name].start("listener", *PYTHON, "http.server", "--bind", "0.0.0.0", "2222")

    lab["hkrouter"].shell(f"ip route add {BEHIND} via {topology.GTUND}")
    far.shell(f"ip route add {topology.METADATA} dev gt-{CLIENT}")
    listeners = [listening("host1"), listening("appliance")]
    try:
        lab.wait("what listens", lambda: asks("appliance", host, 2222) and asks("host1", topology.APPLIANCE, 2222))
        with configured(lab, firewall=firewall):
            assert not asks("pod1", host, 2222)
            assert asks("host1", POD), "what a host begins is answered"
        with configured(lab, firewall=firewall, inbound=[LINK]):
            lab.wait("a pod to be let in", lambda: asks("pod1", host, 2222))
            assert asks("host1", POD)
            for target in (address(lab, 4), topology.APPLIANCE):
                assert not asks("gtund", target, 2222)
                assert not asks("pod1", target, 2222)
            assert not asks("gtund", topology.METADATA)
            assert asks("appliance", topology.METADATA)
            # A host's address as the source: gtund's machine has it, and nobody there is that host.
            far.shell(f"ip address add {host}/32 dev lo")
            assert far.run("ping", "-n", "-c1", "-W1", "-I", host, address(lab, 4), check=False).returncode != 0
            probes.ping(far, address(lab, 4), count=1)
            listed = appliance.shell("iptables-legacy-save -c -t filter; nft list ruleset")
            counted = re.findall(
                rf"(?:^\[|{DEVICE}.* counter packets )([1-9]\d*).*(?:{DEVICE}.*DROP| drop)", listed, re.MULTILINE
            )
            assert len(counted) >= 2, listed  # by the input chain and by the forward chain
    finally:
        far.shell(f"ip address del {host}/32 dev lo 2>/dev/null || true; ip route del {topology.METADATA}")
        lab["hkrouter"].shell(f"ip route del {BEHIND}")
        for process in listeners:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("version", "destination", "port", "reason"),
    [
        (4, topology.METADATA, 80, "drop_closed"),
        (4, "169.254.169.254", 80, "drop_closed"),
        (6, "fd00:ec2::254", 80, "drop_closed"),
        (4, topology.TUNNEL_GATEWAY, 9443, "drop_own_ports"),
        (4, topology.GTUND, 9443, "drop_own_ports"),
        (6, six.GTUND, 9443, "drop_own_ports"),
        (4, "172.31.2.10", 22, "drop_not_served"),
        (6, "fd00:31:2::10", 22, "drop_not_served"),
    ],
)
def test_a_client_that_asks_for_what_is_closed_to_it_is_refused_and_counted(
    lab: Lab, version: int, destination: str, port: int, reason: str
) -> None:
    before = counted(lab, reason)
    inject(lab, udp(address(lab, version), destination, port))
    lab.wait("it to be counted", lambda: counted(lab, reason) > before)


def test_ipv6_is_carried_forwarded_and_masqueraded(lab: Lab) -> None:
    with probes.Capture.open(lab["pod1"], "eth0", "icmp6[0] == 128") as capture:
        probes.ping(lab["host1"], six.POD)
        (first, *_) = capture.frames(lab["host1"], POD)
    assert f"{six.GTUND} > {six.POD}" in first
    server = lab["pod1"].start("http6", *PYTHON, "http.server", "--bind", six.POD, "80")
    try:
        fetch = ("curl", "-sS", "-m", "5", "--retry", "20", "--retry-connrefused", "--retry-delay", "0")
        page = lab["host1"].run(*fetch, f"http://[{six.POD}]/").stdout
        assert "Directory listing" in page
    finally:
        server.kill()
        server.wait()


def test_ipv6_carries_the_tunnel_by_both_channels(lab: Lab) -> None:
    add = gtund(lab.place("gtund"), "client", "add", "six")
    joining = token.decode(lab["gtund"].run(*add).stdout)
    lab.nexthop("link", "join", "six", stdin=token.encode(replace(joining, host=six.GTUND)))
    near, pod = lab["appliance"], topology.PODS["pod2"]
    try:
        lab.wait("the link", lambda: lab.link("six")["state"] == "up")
        lab.wait("both channels", lambda: link(lab, "six")["channels"].get("datagram"))
        assert link(lab, "six")["server"] == f"[{six.GTUND}]:9443"
        near.shell(f"ip route add {pod} dev tun-six")
        with probes.Capture.open(lab["wan"], "hongkong", f"ip6 host {six.GTUND}") as capture:
            probes.ping(near, pod)
            assert probes.curl(near, pod).pod == "pod2"
            frames = capture.frames(near, topology.GTUND_EIP)
        assert any(f"{six.GTUND}.9443: UDP" in frame for frame in frames)
        assert any(f"{six.GTUND}.9443: Flags" in frame for frame in frames)
    finally:
        lab.nexthop("link", "rm", "six")
        lab["gtund"].run(*gtund(lab.place("gtund"), "client", "rm", "six"))


@pytest.mark.parametrize(
    ("what", "reason"), [("replay", "drop_replayed"), ("tamper", "drop_forged"), ("truncate", "drop_malformed")]
)
def test_a_datagram_that_was_interfered_with_is_dropped_and_counted(lab: Lab, what: str, reason: str) -> None:
    before = counted(lab, reason)
    with on_the_line(lab, what):
        probes.ping(lab["host1"], POD)
        lab.wait("it to be counted", lambda: counted(lab, reason) > before)
    probes.ping(lab["host1"], POD)


def test_forged_fragments_in_live_units_make_units_small_and_traffic_goes_on(lab: Lab, tmp_path: Path) -> None:
    def unit_bytes() -> int:
        return int(link(lab)["channels"]["datagram"]["unit_bytes"])

    # What the kernel joined to a whole unit leaves no place to forge: let datagrams come one by one.
    lab["appliance"].run("ethtool", "-K", "eth0", "gso", "off", "tx-udp-segmentation", "off")
    came = tmp_path / "came"
    sink = lab["pod1"].start("sink", *PYTHON, "tests.lab.hostile", "sink", str(came))
    lab.wait("the sink", came.exists)
    flow = lab["host1"].start("flow", *PYTHON, "tests.lab.hostile", "send", POD)
    try:
        lab.wait("large units that arrive", lambda: int(came.read_text() or 0) > 200 and unit_bytes() == frame.BATCH)
        with on_the_line(lab, "fragments"):
            lab.wait("small units", lambda: unit_bytes() < 2 * 1500)
            before = int(came.read_text() or 0)
            lab.wait("traffic under attack", lambda: int(came.read_text() or 0) > before + 1000)
        lab.wait("units to grow again", lambda: unit_bytes() > 4 * 1500)
    finally:
        for process in (flow, sink):
            process.kill()
            process.wait()
        lab["appliance"].run("ethtool", "-K", "eth0", "gso", "on", "tx-udp-segmentation", "on")


def test_a_removed_client_is_cut_and_nothing_of_it_is_left(lab: Lab) -> None:
    lab.join("guest", "guest", "--prefix", "172.20.0.0/16")
    far = lab["gtund"]
    assert "gt-guest" in far.shell("ip route show 172.20.0.0/16")
    far.run(*gtund(lab.place("gtund"), "client", "rm", "guest"))
    lab.wait("the client to be told", lambda: lab.link("guest")["code"] in {"removed", "denied"})
    lab.wait("its device to go", lambda: "gt-guest" not in far.shell("ip link show"))
    lab.wait("its networks to go", lambda: not far.shell("ip route show 172.20.0.0/16"))
    lab.nexthop("link", "rm", "guest")
    probes.ping(lab["host1"], POD, count=1)
