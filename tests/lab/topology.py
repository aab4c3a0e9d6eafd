"""The seed's two networks, as network namespaces.

    Shenzhen VPC 172.18.0.0/16                                   Hong Kong VPC 172.31.0.0/16

    host3 .10 --+ vsw-more 172.18.3.0/24
    host1 .10 --+ vsw-hosts                                                     +-- gtund 172.31.1.10
    host2 .11 --+ 172.18.1.0/24                                    hkrouter ----+
                |                                                 .253 | .253   |  172.31.2.0/24
             vrouter ----------------- (delay) --- wan ----------------+        +-- node 172.31.2.10
                | .253         198.51.100.0/24    .1 .1   203.0.113.0/24              | cni0 10.244.1.1/24
    appliance --+ vsw-app         EIP .10                  EIP .10         pod1 .20 --+
    .10           172.18.2.0/24                                            pod2 .21 --+
                                                                           pod3 .22 --+

`vrouter` is the virtual router of the Shenzhen VPC. `cloud.emulator` runs there and programs its kernel tables: one per
VPC route table, chosen by the interface of the vSwitch that a packet comes from. host3's vSwitch has a route table of
its own, the others share the system's. It drops silently what it has no route
for, as the cloud does. Both clouds translate an elastic address to a machine one to one: 198.51.100.10 is the appliance
(that is the emulator's doing, too), 203.0.113.10 the gtund machine. `node` translates the service 10.96.0.10:80 to the
pods as kube-proxy does. `hkrouter` knows the pods and the service by way of the node; **nobody in Hong Kong knows
100.64.240.0/24**, the tunnel's own addresses, so what comes out of the tunnel must be masqueraded by gtund or is never
answered.

Hosts have one default route, to their vSwitch's gateway, and nothing of ours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute

from tests.lab import ground
from tests.lab.space import Space

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOSTS: Final = {"host1": "172.18.1.10", "host2": "172.18.1.11", "host3": "172.18.3.10"}
VSWITCH: Final = {"host1": "vsw-hosts", "host2": "vsw-hosts", "host3": "vsw-more"}
GATEWAY: Final = {"host1": "172.18.1.253", "host2": "172.18.1.253", "host3": "172.18.3.253"}
APPLIANCE: Final = "172.18.2.10"
APPLIANCE_EIP: Final = "198.51.100.10"
GTUND: Final = "172.31.1.10"
GTUND_EIP: Final = "203.0.113.10"
PODS: Final = {"pod1": "10.244.1.20", "pod2": "10.244.1.21", "pod3": "10.244.1.22"}
SERVICE: Final = "10.96.0.10"
POD_CIDR: Final = "10.244.0.0/16"
SERVICE_CIDR: Final = "10.96.0.0/16"
TUNNEL: Final = "100.64.240.0/24"
TUNNEL_GATEWAY: Final = "100.64.240.1"
CLOUD_API: Final = "100.100.0.10"
METADATA: Final = "100.100.100.200"
INTERNET: Final = "wan0"
INTERNET_GATEWAY: Final = "198.51.100.1"

MAC: Final = {
    "host1": "00:16:3e:00:01:0a",
    "host2": "00:16:3e:00:01:0b",
    "host3": "00:16:3e:00:03:0a",
    "appliance": "00:16:3e:00:02:0a",
}

_NAMES: Final = ("vrouter", *HOSTS, "appliance", "wan", "gtund", "hkrouter", "node", *PODS)


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a cable: the machine, the device's name there, its addresses, and the bridge that it is a port of."""

    machine: str
    device: str
    addresses: tuple[str, ...] = ()
    bridge: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class _Route:
    machine: str
    destination: str
    via: str


_BRIDGES: Final = (
    Interface("vrouter", "vsw-hosts", ("172.18.1.253/24",)),
    Interface("vrouter", "vsw-app", ("172.18.2.253/24",)),
    Interface("vrouter", "vsw-more", ("172.18.3.253/24",)),
    Interface("node", "cni0", ("10.244.1.1/24",)),
)

_CABLES: Final = (
    *(
        (Interface(h, "eth0", (f"{a}/24",), mac=MAC[h]), Interface("vrouter", f"p-{h}", bridge=VSWITCH[h]))
        for h, a in HOSTS.items()
    ),
    (
        Interface("appliance", "eth0", (f"{APPLIANCE}/24",), mac=MAC["appliance"]),
        Interface("vrouter", "p-appliance", bridge="vsw-app"),
    ),
    (Interface("wan", "hongkong", ("203.0.113.1/24",)), Interface("hkrouter", "wan0", (f"{GTUND_EIP}/24",))),
    (Interface("gtund", "eth0", (f"{GTUND}/24",)), Interface("hkrouter", "vsw-gtund", ("172.31.1.253/24",))),
    (Interface("node", "eth0", ("172.31.2.10/24",)), Interface("hkrouter", "vsw-node", ("172.31.2.253/24",))),
    *((Interface(p, "eth0", (f"{a}/24",)), Interface("node", f"p-{p}", bridge="cni0")) for p, a in PODS.items()),
)

_SHENZHEN: Final = Interface("vrouter", INTERNET, ("198.51.100.2/24",))
_WAN: Final = Interface("wan", "shenzhen", (f"{INTERNET_GATEWAY}/24",))

_ROUTES: Final = (
    *(_Route(host, "default", GATEWAY[host]) for host in HOSTS),
    _Route("appliance", "default", "172.18.2.253"),
    _Route("hkrouter", "198.51.100.0/24", "203.0.113.1"),
    _Route("gtund", "default", "172.31.1.253"),
    _Route("node", "default", "172.31.2.253"),
    _Route("hkrouter", POD_CIDR, "172.31.2.10"),
    _Route("hkrouter", SERVICE_CIDR, "172.31.2.10"),
    *(_Route(pod, "default", "10.244.1.1") for pod in PODS),
)

_LOOPBACK: Final = (("vrouter", f"{METADATA}/32"), ("vrouter", f"{CLOUD_API}/32"))

_ROUTERS: Final = ("vrouter", "wan", "hkrouter", "node")

# A router of a cloud neither filters by reverse path nor sends redirects; hosts keep their kernel's defaults.
_FORWARD: Final = "\n".join(
    f"echo {value} > /proc/sys/net/ipv4/{key}"
    for key, value in (
        ("ip_forward", 1),
        ("conf/all/rp_filter", 0),
        ("conf/default/rp_filter", 0),
        ("conf/all/send_redirects", 0),
        ("conf/default/send_redirects", 0),
    )
)


def build(lab: str, *, delay: bool = False) -> Mapping[str, Space]:
    """Make the lab's machines and cables and return the machines by name.

    With `delay` one more machine, `delay`, lies between `vrouter` and `wan`; tests.lab.wan can relay there.
    """
    names = (*_NAMES, "delay") if delay else _NAMES
    spaces = {name: Space(name, ground.create(lab, name), ground.RUN / lab / "log") for name in names}
    for name in _ROUTERS:
        spaces[name].shell(_FORWARD)
    cables = (*_CABLES, *_wan(delay=delay))
    # One socket at a time: opening one forks, and a fork shares the event queues of all that are open then.
    for name, space in spaces.items():
        with IPRoute(netns=space.full) as ip:
            _lay(ip, name, cables, spaces)
    for name, space in spaces.items():
        with IPRoute(netns=space.full) as ip:
            _settle(ip, name, cables)
    _translate(spaces)
    return spaces


def _wan(*, delay: bool) -> tuple[tuple[Interface, Interface], ...]:
    if not delay:
        return ((_SHENZHEN, _WAN),)
    return (_SHENZHEN, Interface("delay", "left")), (_WAN, Interface("delay", "right"))


def _lay(ip: Any, machine: str, cables: Iterable[tuple[Interface, Interface]], spaces: Mapping[str, Space]) -> None:
    """Make a machine's bridges, and the cables whose first end is here."""
    for bridge in _BRIDGES:
        if bridge.machine == machine:
            ip.link("add", ifname=bridge.device, kind="bridge")
    for one, other in cables:
        if one.machine == machine:
            peer = {"ifname": other.device, "net_ns_fd": spaces[other.machine].full}
            ip.link("add", ifname=one.device, kind="veth", peer=peer)


def _settle(ip: Any, machine: str, cables: Iterable[tuple[Interface, Interface]]) -> None:
    """Give a machine's devices their addresses, bring them up, and add its routes."""
    ip.link("set", index=1, state="up")
    for owner, address in _LOOPBACK:
        if owner == machine:
            _address(ip, 1, address)
    for end in (*_BRIDGES, *itertools.chain.from_iterable(cables)):
        if end.machine == machine:
            (index,) = ip.link_lookup(ifname=end.device)
            if end.mac:
                ip.link("set", index=index, address=end.mac)
            if end.bridge:
                ip.link("set", index=index, master=ip.link_lookup(ifname=end.bridge)[0])
            for address in end.addresses:
                _address(ip, index, address)
            ip.link("set", index=index, state="up")
    for route in _ROUTES:
        if route.machine == machine:
            ip.route("add", dst=route.destination, gateway=route.via)


def _address(ip: Any, index: int, address: str) -> None:
    host, _, length = address.partition("/")
    ip.addr("add", index=index, address=host, prefixlen=int(length))


def _translate(spaces: Mapping[str, Space]) -> None:
    spaces["hkrouter"].run(
        *("nft", "-f", "-"),
        stdin=f"""table ip elastic {{
            chain in {{
                type nat hook prerouting priority dstnat
                iifname "wan0" ip daddr {GTUND_EIP} dnat to {GTUND}
            }}
            chain out {{
                type nat hook postrouting priority srcnat
                oifname "wan0" ip saddr {GTUND} snat to {GTUND_EIP}
            }}
        }}""",
    )
    backends = ", ".join(f"{number} : {address}" for number, address in enumerate(PODS.values()))
    spaces["node"].run(
        *("nft", "-f", "-"),
        stdin=f"""table ip services {{
            chain in {{
                type nat hook prerouting priority dstnat
                ip daddr {SERVICE} tcp dport 80 dnat to numgen random mod {len(PODS)} map {{ {backends} }}
            }}
        }}""",
    )
