"""The TUN device: opened for large packets, persistent, and without carrier until a session carries.

Persistent means that device, addresses and routes outlive the process (TUNSETPERSIST): a restart costs no route. The
carrier falls when the last descriptor is closed, and the kernel skips routes over a device without carrier where
ignore_routes_with_linkdown is set; so a dead tunnel answers at once instead of swallowing packets.

Offloads are probed flag by flag, since a kernel before 6.2 refuses the whole set for the sake of the one it lacks.
gso_max_size is never touched: any value below 65536 makes the kernel cut every forwarded super-packet in software.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Any, Final

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETCARRIER: Final = 0x400454E2
_TUNGETIFF: Final = 0x800454D2
_IFF_TUN: Final = 0x0001
_IFF_NO_CARRIER: Final = 0x0040
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_OPTIONAL: Final = {"tso4": 0x02, "tso6": 0x04, "ecn": 0x08, "uso4": 0x20, "uso6": 0x40}
_VNET_HEADER: Final = 10
_FORBIDDEN: Final = 4000
"""Metric of our unreachable routes: below any that carries."""

_BEHIND: Final = 4002
"""The same for networks behind a peer; gtund for the old protocol has 4001."""

_PROTOCOL: Final = "111"
"""What our routes say of their origin; the appliance's own say 110."""

# linux/sockios.h, linux/ethtool.h, linux/if.h
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GLINK: Final = 0x0000000A
_IFNAMSIZ: Final = 16
_IFREQ: Final = 40


Network = IPv4Network | IPv6Network

LINKS: Final = "tun-*"
"""Names of links' devices, on the appliance."""


class DeviceBusy(Exception):
    """Another process holds the device."""


class DeviceRefused(Exception):
    """The kernel does not give us the device; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN: the descriptor is non-blocking and belongs to whoever holds this value."""

    name: str
    fd: int
    offloads: frozenset[str]


def attach(name: str, *, large: bool = True) -> Tun:
    """Open the persistent TUN `name`, making it if need be, without carrier; raise `DeviceBusy` or `DeviceRefused`.

    Unless `large`, there are no offloads and no virtio header: each read is one packet of at most the device's MTU.
    """
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DeviceRefused("there is no /dev/net/tun: load the module with `modprobe tun`") from None
    try:
        _claim(fd, name, _IFF_VNET_HDR if large else 0)
        if large:
            fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", _VNET_HEADER))
            offloads = _probe_offloads(fd)
        else:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)  # a persistent device keeps those of whoever held it before
            offloads = frozenset()
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        set_carrier(fd, up=False)
    except BaseException:
        os.close(fd)
        raise
    return Tun(name, fd, offloads)


def set_carrier(fd: int, *, up: bool) -> None:
    """Tell the kernel whether the tunnel carries, and see to it that its routes know."""
    fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("i", up))
    settle(fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ))[:_IFNAMSIZ].partition(b"\0")[0])


def settle(name: bytes) -> None:
    """Have a change of carrier take effect now; a device that is not there is no error.

    The kernel tells the routing table of it at most once a second, all devices together (net/core/link_watch.c), and
    packets that come meanwhile vanish. Asking for the link's state brings that device's turn forward, from Linux 6.8 on
    (linkwatch_sync_dev in ethtool_op_get_link).
    """
    value = ctypes.create_string_buffer(struct.pack("II", _ETHTOOL_GLINK, 0))
    request = struct.pack("16sP", name, ctypes.addressof(value)).ljust(_IFREQ, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        fcntl.ioctl(sock, _SIOCETHTOOL, request)


def destroy(name: str) -> None:
    """Remove the device, addresses and routes with it; none there is no error."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def _claim(fd: int, name: str, header: int) -> None:
    flags = _IFF_TUN | _IFF_NO_PI | header
    # Since 6.0 the device can be opened without carrier; before, the moment until `set_carrier` is a black hole.
    for extra in (_IFF_NO_CARRIER, 0):
        try:
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags | extra))
        except PermissionError:
            raise DeviceRefused(f"opening {name} needs CAP_NET_ADMIN") from None
        except BlockingIOError as error:
            raise DeviceRefused(f"{name}: {error}") from None
        except OSError as error:
            if error.errno == 16:
                raise DeviceBusy(f"{name} is held by another process") from None
            if extra:
                continue
            raise DeviceRefused(f"{name} is there but is no TUN that we can use: {error.strerror}") from None
        return


def _probe_offloads(fd: int) -> frozenset[str]:
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM)
    accepted, taken = _TUN_F_CSUM, {"csum"}
    # The kernel takes both halves of USO or none, and ECN only beside TSO.
    for names in (("tso4",), ("tso6",), ("ecn",), ("uso4", "uso6")):
        wanted = accepted
        for name in names:
            wanted |= _OPTIONAL[name]
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, wanted)
        except OSError:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, accepted)
        else:
            accepted = wanted
            taken.update(names)
    return frozenset(taken)


@dataclass(frozen=True, slots=True)
class Addressing:
    """How a TUN is set up. A `peer` makes it point to point; without, the whole subnet is on the link.

    `behind`: networks that lie behind the peer, and nowhere else: with the carrier gone they are unreachable.
    """

    address: IPv4Interface
    peer: IPv4Address | None
    mtu: int
    alias: str
    address6: IPv6Interface | None = None
    peer6: IPv6Address | None = None
    behind: tuple[Network, ...] = ()


def configure(name: str, want: Addressing) -> None:
    """Give the device its address, MTU and alias, and set it up. What is already so is left alone.

    The new address comes before the old one goes: with its last address a device loses its routes. In the old one's
    subnet the new one is its secondary, which goes with it, unless `promote_secondaries` is set (devinet.c).
    """
    _quiet(name, v6=want.address6 is not None)
    there, wanted = _held(json.loads(_ip(["-json", "address", "show", "dev", name]))[0]), _wanted(want)
    lines = [f"link set dev {name} mtu {want.mtu} alias {json.dumps(want.alias)}", f"link set dev {name} up"]
    lines += [f"address add {_spelt(held)} dev {name}" for held in wanted - there]
    lines += [f"address delete {_spelt(held)} dev {name}" for held in there - wanted]
    behind = {str(network) for network in want.behind}
    for version in (4, 6):
        routes = json.loads(_ip(["-json", f"-{version}", "route", "show", "dev", name, "proto", _PROTOCOL]) or "[]")
        lines += [f"route delete {route['dst']} dev {name}" for route in routes if _network(route) not in behind]
    for network in want.behind:
        lines += [
            f"route replace {network} dev {name} proto {_PROTOCOL}",
            f"route replace unreachable {network} metric {_BEHIND}",
        ]
    _ip(["-batch", "-"], "\n".join(lines) + "\n")


def keep_behind(networks: Iterable[Network]) -> None:
    """Take back what `configure` did about networks that lie behind no peer any more."""
    wanted = {str(network) for network in networks}
    for version in (4, 6):
        shown = _ip(["-json", f"-{version}", "route", "show", "type", "unreachable", "metric", str(_BEHIND)])
        for route in json.loads(shown or "[]"):
            if _network(route) not in wanted:
                _ip(["route", "delete", "unreachable", route["dst"], "metric", str(_BEHIND)])


def _network(route: Mapping[str, Any]) -> str:
    """Return a route's destination with its length, which `ip` leaves out of a host's."""
    return str(ip_network(route["dst"]))


def with_alias(prefix: str) -> list[str]:
    """Return the devices whose alias begins so."""
    return [link["ifname"] for link in json.loads(_ip(["-json", "link", "show"])) if _is(link, prefix)]


def _is(link: Mapping[str, Any], prefix: str) -> bool:
    return str(link.get("ifalias", "")).startswith(prefix)


def exists(name: str) -> bool:
    """Tell whether there is a device of that name."""
    return name in {found for _, found in socket.if_nameindex()}


def lacks(name: str, want: Addressing) -> str | None:
    """Return the kind of what the device lacks of what `configure` gives it; raise `DeviceRefused` without a device."""
    have = json.loads(_ip(["-json", "-details", "address", "show", "dev", name]))[0]
    if "UP" not in have.get("flags", ()):
        return "device-down"
    if _held(have) != _wanted(want):
        return "address"
    return None if (have.get("mtu"), have.get("ifalias")) == (want.mtu, want.alias) else "device-settings"


_Held = tuple[str, str | None, int]
"""Of an address: itself, the peer's, and the length in bits."""


def _held(have: Mapping[str, Any]) -> set[_Held]:
    return {
        (info["local"], info.get("address"), info["prefixlen"])
        for info in have["addr_info"]
        if info.get("scope") != "link"
    }


def _wanted(want: Addressing) -> set[_Held]:
    pairs: tuple[tuple[IPv4Interface | IPv6Interface | None, IPv4Address | IPv6Address | None], ...] = (
        (want.address, want.peer),
        (want.address6, want.peer6),
    )
    return {
        (str(address.ip), str(peer) if peer else None, address.max_prefixlen if peer else address.network.prefixlen)
        for address, peer in pairs
        if address is not None
    }


def _spelt(held: _Held) -> str:
    address, peer, length = held
    return f"{address} peer {peer}/{length}" if peer else f"{address}/{length}"


def forbid(subnet: Network, metric: int = _FORBIDDEN) -> None:
    """Make packets for `subnet` that no device carries end here, instead of leaving by the default route."""
    _ip(["route", "replace", "unreachable", str(subnet), "metric", str(metric)])


def permit(subnet: Network, metric: int = _FORBIDDEN) -> None:
    """Take `forbid` back; not there is no error."""
    route = ["ip", "route", "delete", "unreachable", str(subnet), "metric", str(metric)]
    subprocess.run(route, check=False, capture_output=True)


def occupied(subnet: Network, ours: str, metric: int = _FORBIDDEN) -> str | None:
    """Return what else on this machine uses addresses of `subnet`, for people; None when nothing does.

    Else means: other than devices whose names match `ours`, and unreachable routes with this metric, as `forbid` makes
    them. A route wider than `subnet` (Aliyun's images have one for 100.64.0.0/10) is no use of it.
    """
    version = f"-{subnet.version}"
    for device in json.loads(_ip(["-json", version, "address", "show"])):
        for info in device.get("addr_info", ()):
            where = ip_interface(f"{info['local']}/{info['prefixlen']}")
            if not fnmatchcase(device["ifname"], ours) and where.network.overlaps(subnet):
                return f"{where} on {device['ifname']}"
    for route in json.loads(_ip(["-json", version, "route", "show"]) or "[]"):
        if route["dst"] == "default":
            continue
        forbidden = route.get("type") == "unreachable" and route.get("metric") == metric
        inside = ip_network(route["dst"]).subnet_of(subnet)  # type: ignore[arg-type]
        if inside and not forbidden and not fnmatchcase(route.get("dev", ""), ours):
            return f"a route to {route['dst']}" + (f" by {route['dev']}" if "dev" in route else "")
    return None


def _quiet(name: str, *, v6: bool) -> None:
    """Skip routes over the device while it has no carrier, and keep IPv6 from talking on its own over it.

    And keep the other addresses of a subnet when its first one goes.
    """
    for path, value in (
        (f"ipv4/conf/{name}/ignore_routes_with_linkdown", "1"),
        (f"ipv4/conf/{name}/promote_secondaries", "1"),
        (f"ipv6/conf/{name}/addr_gen_mode", "1"),
        (f"ipv6/conf/{name}/ignore_routes_with_linkdown", "1"),
        *([(f"ipv6/conf/{name}/disable_ipv6", "0")] if v6 else []),
    ):
        setting = Path("/proc/sys/net") / path
        if setting.exists() and setting.read_text().strip() != value:
            setting.write_text(value)


def _ip(arguments: list[str], text: str = "") -> str:
    done = subprocess.run(["ip", *arguments], input=text, check=False, capture_output=True, text=True)
    if done.returncode:
        raise DeviceRefused(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
