"""The rules under real packets: a host, the appliance as a router, and a far side behind what plays the tunnel device.

The appliance has one arm: its default route leads back to the host, as the VPC's router would send everything.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from appliance.kernel.firewall import Backend
from appliance.kernel.rules import Rules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Space

pytestmark = pytest.mark.lab

POD, TUNNEL = "10.244.1.20", "100.64.240.50"
HK = frozenset({"tun-hk"})
CIDR = (ip_network("10.244.0.0/16"), "tun-hk")
MASKED = Rules(masquerade=frozenset({CIDR}), forward=HK, clamp=HK, vpc="eth0")
PLAIN = Rules(plain=frozenset({CIDR}), forward=HK, clamp=HK, vpc="eth0")


class Path:
    """host (172.18.2.20) - appliance (172.18.2.10, 100.64.240.50) - far (100.64.240.1, 10.244.1.20)."""

    def __init__(self, spaces: list[Space]) -> None:
        self.host, self.appliance, self.far = spaces
        host, far = self.host.name, self.far.name
        self.appliance.sh(
            f"ip link add eth0 type veth peer name eth0 netns {host};"
            f"ip link add tun-hk type veth peer name tun netns {far};"
            "ip addr add 172.18.2.10/24 dev eth0; ip addr add 100.64.240.50/24 dev tun-hk;"
            "ip link set eth0 up; ip link set tun-hk up mtu 1400; ip route add default via 172.18.2.20;"
            "ip route add 10.244.0.0/16 dev tun-hk via 100.64.240.1; sysctl -qw net.ipv4.ip_forward=1;"
            "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0"
        )
        self.host.sh(
            "ip addr add 172.18.2.20/24 dev eth0; ip link set eth0 up; ip link set lo up;"
            "ip route add default via 172.18.2.10"
        )
        self.far.sh(
            f"ip addr add 100.64.240.1/24 dev tun; ip addr add {POD}/32 dev lo; ip link set tun up; ip link set lo up"
        )

    def ping(self) -> subprocess.CompletedProcess[str]:
        with self.host.entered():
            return subprocess.run(
                ["ping", "-n", "-c", "1", "-W", "2", POD], capture_output=True, text=True, check=False
            )

    def peer_of_a_connection(self) -> str:
        """The address that the far side sees when the host connects to the pod."""
        with self.far.entered():
            server = socket.create_server((POD, 80))
        with server, self.host.entered():
            server.settimeout(5)
            with socket.create_connection((POD, 80), timeout=5) as client:
                there, (peer, _) = server.accept()
                with there:
                    there.sendall(b"hello")
                    assert client.recv(5) == b"hello"
                return str(peer)

    def legacy_drop(self) -> None:
        self.appliance.sh("iptables-legacy -P FORWARD DROP; iptables-legacy -A FORWARD -j DROP")


@pytest.fixture
def path(spaces: list[Space]) -> Path:
    return Path(spaces)


def test_masquerade_makes_the_far_side_need_no_route_back(path: Path, firewall: Backend) -> None:
    assert path.ping().returncode != 0, "the far side has no route to the host"
    with path.appliance.entered():
        firewall.write(MASKED)
    assert path.ping().returncode == 0
    assert path.peer_of_a_connection() == TUNNEL


def test_without_masquerade_the_source_is_kept(path: Path, firewall: Backend) -> None:
    path.far.sh("ip route add 172.18.2.0/24 via 100.64.240.50")
    with path.appliance.entered():
        firewall.write(PLAIN)
    assert path.peer_of_a_connection() == "172.18.2.20"


@pytest.mark.iptables
def test_a_foreign_drop_in_iptables_does_not_reach_our_traffic(path: Path) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    path.legacy_drop()
    with path.appliance.entered():
        backend("iptables").write(MASKED)
    assert path.ping().returncode == 0
    assert path.peer_of_a_connection() == TUNNEL


def test_with_nftables_a_foreign_drop_wins_and_is_reported(path: Path) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415
    from appliance.kernel.obstacles import obstacles  # noqa: PLC0415

    with path.appliance.entered():
        assert obstacles("nftables") == ()
        backend("nftables").write(MASKED)
        assert obstacles("nftables") == ()
        path.legacy_drop()
        (text,) = obstacles("nftables")
        assert obstacles("iptables") == ()
    assert "FORWARD" in text
    assert path.ping().returncode != 0


def _captured(space: Space, device: str) -> socket.socket:
    with space.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        tap.bind((device, 0))
        tap.setblocking(False)
        return tap


def _packets(tap: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (whether it came in, the IPv4 packet) of what has been captured so far."""
    while True:
        try:
            frame, address = tap.recvfrom(65535)
        except BlockingIOError:
            return
        if frame[12:14] == b"\x08\x00":
            yield address[2], frame[14:]


def test_what_would_leave_outside_the_tunnel_is_answered_with_icmp(path: Path, firewall: Backend) -> None:
    path.appliance.sh("ip route del 10.244.0.0/16")
    with _captured(path.host, "eth0") as tap:
        assert path.ping().returncode != 0
        sent_back = [packet for kind, packet in _packets(tap) if kind == 0 and packet[16:20] == socket.inet_aton(POD)]
    assert sent_back, "without the rules it leaks: else this test shows nothing"
    with path.appliance.entered():
        firewall.write(MASKED)
    with _captured(path.host, "eth0") as tap:
        answer = path.ping()
        captured = list(_packets(tap))
    assert "Destination Host Unreachable" in answer.stdout
    assert not [packet for kind, packet in captured if kind == 0 and packet[16:20] == socket.inet_aton(POD)]


def test_an_established_connection_does_not_leave_outside_the_tunnel_either(path: Path, firewall: Backend) -> None:
    with path.appliance.entered():
        firewall.write(MASKED)
    with path.far.entered():
        server = socket.create_server((POD, 80))
    with server, path.host.entered(), socket.create_connection((POD, 80), timeout=5) as client:
        path.appliance.sh("ip route del 10.244.0.0/16")
        with _captured(path.host, "eth0") as tap:
            client.sendall(b"lost")
            answer = path.ping()
            captured = list(_packets(tap))
        assert "Destination Host Unreachable" in answer.stdout
        assert not [packet for kind, packet in captured if kind == 0 and packet[16:20] == socket.inet_aton(POD)]


def test_what_is_not_ours_is_forwarded_as_before(path: Path, firewall: Backend) -> None:
    path.appliance.sh("ip route add 192.0.2.0/24 via 100.64.240.1")
    path.far.sh("ip addr add 192.0.2.1/32 dev lo; ip route add 172.18.2.0/24 via 100.64.240.50")
    with path.appliance.entered():
        firewall.write(MASKED)
    with path.host.entered():
        subprocess.run(["ping", "-n", "-c", "1", "-W", "2", "192.0.2.1"], check=True, stdout=subprocess.DEVNULL)


def test_what_conntrack_calls_invalid_does_not_enter_the_tunnel(path: Path, firewall: Backend) -> None:
    path.appliance.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0")
    with path.appliance.entered():
        firewall.write(MASKED)
    assert path.ping().returncode == 0
    # An ACK of a connection that nobody opened.
    tcp = struct.pack("!HHIIBBHHH", 4000, 80, 1, 1, 5 << 4, 0x10, 1000, 0, 0)
    with _captured(path.far, "tun") as tap, path.host.entered():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.sendto(tcp, (POD, 0))
        assert path.ping().returncode == 0
        protocols = [packet[9] for _, packet in _packets(tap)]
    assert socket.IPPROTO_ICMP in protocols
    assert socket.IPPROTO_TCP not in protocols


GUARDED = replace(MASKED, guarded=HK, own=frozenset({(ip_network("100.64.240.0/24"), "tun-hk")}))


def _reaches(path: Path, at: Space, address: str, source: str) -> bool:
    """Tell whether the far side, from `source`, can connect to what listens at `address` in `at`."""
    with at.entered():
        server = socket.create_server(("0.0.0.0", 22))
    with server, path.far.entered():
        try:
            socket.create_connection((address, 22), timeout=0.4, source_address=(source, 0)).close()
        except TimeoutError:
            return False
        return True


def test_a_far_end_begins_connections_only_where_it_may_and_from_what_is_carried(path: Path, firewall: Backend) -> None:
    path.far.sh("ip route add 172.18.2.0/24 via 100.64.240.50; ip addr add 172.18.2.99/32 dev lo")
    host = path.host, "172.18.2.20"
    assert _reaches(path, *host, source=POD), "the claim is empty"
    with path.appliance.entered():
        firewall.write(GUARDED)
        assert not _reaches(path, *host, source=POD)
        assert not _reaches(path, *host, source="172.18.2.99")
        assert path.peer_of_a_connection() == TUNNEL
        firewall.write(replace(GUARDED, inbound=HK))
        assert _reaches(path, *host, source=POD)
        assert not _reaches(path, *host, source="172.18.2.99")
        assert path.peer_of_a_connection() == TUNNEL


def test_a_far_end_reaches_neither_what_listens_on_the_appliance_nor_metadata(path: Path, firewall: Backend) -> None:
    metadata = "100.100.100.200"
    path.far.sh(f"ip route add 172.18.2.0/24 via 100.64.240.50; ip route add {metadata} via 100.64.240.50")
    path.host.sh(f"ip addr add {metadata}/32 dev lo")  # the host stands for all that lies beyond eth0
    ends = [(path.appliance, TUNNEL), (path.appliance, "172.18.2.10"), (path.host, metadata)]
    assert all(_reaches(path, *end, source=POD) for end in ends), "the claim is empty"
    with path.appliance.entered():
        firewall.write(replace(GUARDED, inbound=HK))
        assert not any(_reaches(path, *end, source=POD) for end in ends)
        path.far.sh(f"ping -n -c 1 -W 2 {TUNNEL}; ping -n -c 1 -W 2 -I {POD} {TUNNEL}")
        # What this machine began is answered.
        with path.far.entered():
            server = socket.create_server((POD, 80))
        with server:
            socket.create_connection((POD, 80), timeout=5).close()
    listed = path.appliance.sh("iptables-legacy-save -c -t filter; nft list ruleset")
    dropped = re.findall(r"^\[(\d+):.* -j DROP|counter packets (\d+) .* drop", listed, re.MULTILINE)
    assert sum(int(count) > 0 for pair in dropped for count in pair if count) == 2, listed


def _mss(packet: bytes) -> int:
    """The MSS option of a TCP SYN, 0 for any other packet."""
    tcp = packet[(packet[0] & 15) * 4 :]
    if packet[9] != socket.IPPROTO_TCP or not tcp[13] & 0x02:
        return 0
    options = tcp[20 : (tcp[12] >> 4) * 4]
    while options:
        if options[0] == 2:
            return int(struct.unpack_from("!H", options, 2)[0])
        options = options[1:] if options[0] == 1 else options[options[1] :]
    return 0


def test_mss_is_clamped_in_both_directions(path: Path, firewall: Backend) -> None:
    with path.appliance.entered():
        firewall.write(MASKED)
    with _captured(path.far, "tun") as far, _captured(path.host, "eth0") as host:
        path.peer_of_a_connection()
        syn = {_mss(packet) for kind, packet in _packets(far) if kind == 0} - {0}
        answer = {_mss(packet) for kind, packet in _packets(host) if kind == 0} - {0}
    assert syn == {1360}
    assert answer == {1360}
