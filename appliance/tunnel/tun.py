"""The TUN device: opened for large packets, persistent, and without carrier until a session carries.

Persistent means that device, addresses and routes outlive the process (TUNSETPERSIST): a restart costs no route. The
carrier falls when the last descriptor is closed, and the kernel skips routes over a device without carrier where
ignore_routes_with_linkdown is set; so a dead tunnel answers at once instead of swallowing packets.

Offloads are probed flag by flag, since a kernel before 6.2 refuses the whole set for the sake of the one it lacks.
gso_max_size is never touched: any value below 65536 makes the kernel cut every forwarded super-packet in software.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Final

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETPERSIST: Final = 0x400454CB
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8
_TUNSETCARRIER: Final = 0x400454E2
_IFF_TUN: Final = 0x0001
_IFF_NO_CARRIER: Final = 0x0040
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_TUN_F_CSUM: Final = 0x01
_OPTIONAL: Final = {"tso4": 0x02, "tso6": 0x04, "ecn": 0x08, "uso4": 0x20, "uso6": 0x40}
_VNET_HEADER: Final = 10


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


def attach(name: str) -> Tun:
    """Open the persistent TUN `name`, making it if need be, without carrier; raise `DeviceBusy` or `DeviceRefused`."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DeviceRefused("there is no /dev/net/tun: load the module with `modprobe tun`") from None
    try:
        _claim(fd, name)
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", _VNET_HEADER))
        offloads = _probe_offloads(fd)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
        set_carrier(fd, up=False)
    except BaseException:
        os.close(fd)
        raise
    return Tun(name, fd, offloads)


def set_carrier(fd: int, *, up: bool) -> None:
    """Tell the kernel whether the tunnel carries."""
    fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("i", up))


def destroy(name: str) -> None:
    """Remove the device, addresses and routes with it; none there is no error."""
    subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def _claim(fd: int, name: str) -> None:
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
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
            raise DeviceRefused(f"{name} is there but is no TUN with a virtio header: {error.strerror}") from None
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
    """How a TUN is set up. `peer` makes it point to point; without, the whole subnet is on the link."""

    address: IPv4Interface
    peer: IPv4Address | None
    mtu: int
    alias: str


def configure(name: str, want: Addressing) -> None:
    """Give the device its address, MTU and alias, and set it up. What is already so is left alone.

    The new address comes before the old one goes: with its last address a device loses its routes.
    """
    _quiet(name)
    have = json.loads(_ip(["-json", "address", "show", "dev", name]))[0]
    there = _held(have)
    wanted = _wanted(want)
    peer = wanted[1]
    lines = [f"link set dev {name} mtu {want.mtu} alias {json.dumps(want.alias)}", f"link set dev {name} up"]
    if wanted not in there:
        target = f"{want.address.ip} peer {peer}/32" if peer else str(want.address)
        lines.append(f"address add {target} dev {name}")
    lines += [
        f"address delete {local} {f'peer {other}/{prefix}' if other else ''} dev {name}"
        if other
        else f"address delete {local}/{prefix} dev {name}"
        for local, other, prefix in there - {wanted}
    ]
    _ip(["-batch", "-"], "\n".join(lines) + "\n")


def exists(name: str) -> bool:
    """Tell whether there is a device of that name."""
    return name in {found for _, found in socket.if_nameindex()}


def lacks(name: str, want: Addressing) -> str | None:
    """Return the kind of what the device lacks of what `configure` gives it; raise `DeviceRefused` without a device."""
    have = json.loads(_ip(["-json", "-details", "address", "show", "dev", name]))[0]
    if "UP" not in have.get("flags", ()):
        return "device-down"
    if _held(have) != {_wanted(want)}:
        return "address"
    return None if (have.get("mtu"), have.get("ifalias")) == (want.mtu, want.alias) else "device-settings"


def _held(have: Mapping[str, Any]) -> set[tuple[str, str | None, int]]:
    return {
        (info["local"], info.get("address"), info["prefixlen"])
        for info in have["addr_info"]
        if info["family"] == "inet"
    }


def _wanted(want: Addressing) -> tuple[str, str | None, int]:
    peer = str(want.peer) if want.peer else None
    return str(want.address.ip), peer, 32 if peer else want.address.network.prefixlen


def forbid(subnet: IPv4Network) -> None:
    """Make packets for `subnet` that no device carries end here, instead of leaving by the default route."""
    _ip(["route", "replace", "unreachable", str(subnet), "metric", "4000"])


def permit(subnet: IPv4Network) -> None:
    """Take `forbid` back; not there is no error."""
    subprocess.run(["ip", "route", "delete", "unreachable", str(subnet)], check=False, capture_output=True)


def _quiet(name: str) -> None:
    """Skip routes over the device while it has no carrier, and keep IPv6 from talking on its own over it."""
    for path, value in (
        (f"ipv4/conf/{name}/ignore_routes_with_linkdown", "1"),
        (f"ipv6/conf/{name}/addr_gen_mode", "1"),
    ):
        setting = Path("/proc/sys/net") / path
        if setting.exists() and setting.read_text().strip() != value:
            setting.write_text(value)


def _ip(arguments: list[str], text: str = "") -> str:
    done = subprocess.run(["ip", *arguments], input=text, check=False, capture_output=True, text=True)
    if done.returncode:
        raise DeviceRefused(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
