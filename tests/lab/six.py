"""IPv6 for a lab that is up: addresses beside the IPv4 ones, and routes by hand where the cloud would have them.

    host1 fd00:18:1::10 - vrouter - appliance fd00:18:2::10            gtund fd00:31:1::10
                             | fd00:198::2                                    |
                             +------- wan fd00:198::1, fd00:203::2 ------- hkrouter fd00:203::10
                                                                              |
                                                              node fd00:31:2::10, pod1 fd00:10:244::20

The Internet in the middle routes IPv6 as it is: nobody translates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.lab.lab import Lab

HOST: Final = "fd00:18:1::10"
APPLIANCE: Final = "fd00:18:2::10"
GTUND: Final = "fd00:31:1::10"
POD: Final = "fd00:10:244::20"
POD_CIDR: Final = "fd00:10:244::/64"

_ADDRESSES: Final = {
    "host1": {"eth0": HOST},
    "vrouter": {"vsw-hosts": "fd00:18:1::1", "vsw-app": "fd00:18:2::1", "wan0": "fd00:198::2"},
    "appliance": {"eth0": APPLIANCE},
    "wan": {"shenzhen": "fd00:198::1", "hongkong": "fd00:203::2"},
    "hkrouter": {"wan0": "fd00:203::10", "vsw-gtund": "fd00:31:1::1", "vsw-node": "fd00:31:2::1"},
    "gtund": {"eth0": GTUND},
    "node": {"eth0": "fd00:31:2::10", "cni0": "fd00:10:244::1"},
    "pod1": {"eth0": POD},
}
_ROUTES: Final = {
    "host1": {"default": "fd00:18:1::1"},
    "vrouter": {"fd00:31::/32": "fd00:198::1", POD_CIDR: APPLIANCE},
    "appliance": {"default": "fd00:18:2::1"},
    "wan": {"fd00:18::/32": "fd00:198::2", "fd00:31::/32": "fd00:203::10"},
    "hkrouter": {"fd00:18:2::/64": "fd00:203::2", POD_CIDR: "fd00:31:2::10"},
    "gtund": {"default": "fd00:31:1::1"},
    "node": {"default": "fd00:31:2::1"},
    "pod1": {"default": "fd00:10:244::1"},
}
_ROUTERS: Final = ("vrouter", "wan", "hkrouter", "node")


def build(lab: Lab) -> None:
    """Give the lab's machines their IPv6 addresses and routes."""
    for name in _ROUTERS:
        lab[name].shell("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    for name, devices in _ADDRESSES.items():
        lines = [f"address add {address}/64 dev {device} nodad" for device, address in devices.items()]
        lines += [f"route add {target} via {via}" for target, via in _ROUTES[name].items()]
        lab[name].run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
