"""Routes, devices and their changes, over netlink. We write and remove only routes that carry our protocol number.

Reading is whole: `observe` keeps nothing between calls. A write may be repeated without harm, and never displaces a
route of somebody else, even one with the same destination and metric: that is `Refused`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Final, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from appliance.kernel.state import PROTOCOL, Address, Device, DeviceGone, KernelState, Network, Refused, Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from types import TracebackType

_MAIN: Final = 254  # RT_TABLE_MAIN, uapi/linux/rtnetlink.h
_UNICAST: Final = 1
_UNREACHABLE: Final = 7
_IFF_UP: Final = 1
# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, uapi/linux/rtnetlink.h
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_SETTLE: Final = 0.005  # seconds; a burst of events is one change
_NOT_THERE: Final = {errno.ENODEV, errno.ENXIO, errno.ENETDOWN}
_ALREADY_GONE: Final = {errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.ENOENT}
_DUMP_TRIES: Final = 5
# NLM_F_DUMP_INTR, uapi/linux/netlink.h: the table changed meanwhile. pyroute2 only passes it on.
_INTERRUPTED: Final = 0x10


class Routes:
    """The kernel's routes and devices, in the network namespace where this was entered.

    `writes` counts the changes that the kernel took from us.
    """

    def __init__(self) -> None:
        self.writes = 0
        self._netlink: Any = None
        self._one_at_a_time = asyncio.Lock()  # a second dump on one netlink socket is EBUSY

    async def __aenter__(self) -> Self:
        self._netlink = await AsyncIPRoute().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        netlink, self._netlink = self._netlink, None
        await netlink.__aexit__(kind, error, trace)

    async def observe(self) -> KernelState:
        """Read devices, addresses and both families' main tables."""
        links = await self._dump("get_links")
        addresses = await self._dump("get_addr")
        tables = await self._dump("get_routes", family=socket.AF_INET, table=_MAIN)
        tables += await self._dump("get_routes", family=socket.AF_INET6, table=_MAIN)
        devices = _devices(links, addresses)
        names = {device.index: device.name for device in devices.values()}
        main = [message for message in tables if message.get("table") == _MAIN]
        ours = (_route(message, names) for message in main if message["proto"] == PROTOCOL)
        others = [message for message in main if message["proto"] != PROTOCOL and message["type"] == _UNICAST]
        return KernelState(
            routes=frozenset(route for route in ours if route is not None),
            foreign=frozenset(_destination(message) for message in others),
            devices=devices,
            default_device=_default_device(others, names),
        )

    async def add(self, route: Route) -> None:
        """Install `route`; one of ours with the same destination and metric gives way to it.

        Raise `DeviceGone` when the device is absent or down (the kernel takes no route to a device that is down; one
        that is up without carrier will do), `Refused` when somebody else's route is in the way.
        """
        spec = self._spec(route)
        try:
            await self._write("route", "add", **spec)
        except NetlinkError as failure:
            if failure.code == errno.EEXIST:
                await self._displace(route, spec)
                return
            raise _error(failure, f"add the route to {route.destination}", route.device) from None

    async def _displace(self, route: Route, spec: dict[str, Any]) -> None:
        state = await self.observe()
        if route in state.routes:
            return
        family = socket.AF_INET if route.destination.version == 4 else socket.AF_INET6
        held = [
            message
            for message in await self._dump("get_routes", family=family, table=_MAIN)
            if _destination(message) == route.destination and (message.get("priority") or 0) == route.metric
        ]
        if any(message["proto"] != PROTOCOL for message in held):
            raise Refused(
                f"a route to {route.destination} with metric {route.metric} is there that is not ours: remove it, or "
                f"give it another metric (ip route show {route.destination})"
            )
        try:
            await self._write("route", "replace", **spec)
        except NetlinkError as failure:
            raise _error(failure, f"replace the route to {route.destination}", route.device) from None

    async def remove(self, route: Route) -> None:
        """Remove `route`; none there, or no such device any more, is no error."""
        try:
            await self._write("route", "del", **self._spec(route))
        except DeviceGone:
            return  # its routes went with it
        except NetlinkError as failure:
            if failure.code in _ALREADY_GONE:
                return
            raise _error(failure, f"remove the route to {route.destination}", route.device) from None

    async def delete_device(self, name: str) -> None:
        """Delete a TUN device that carries our alias; `Refused` for any other, none there is no error."""
        device = _devices(await self._dump("get_links"), ()).get(name)
        if device is None:
            return
        if not device.ours:
            raise Refused(f"{name} is not a tunnel device that gtun made: not deleted")
        try:
            await self._write("link", "del", index=device.index)
        except NetlinkError as failure:
            if failure.code in _ALREADY_GONE:
                return
            raise _error(failure, f"delete {name}", name) from None

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield whenever links, addresses or routes changed, once per burst; our own writes count as well.

        The first comes at once: from there on nothing is missed, so look then.

        The content is not looked at: whoever is woken observes. That is why this is a bare socket: decoding what nobody
        reads costs a tenth of a millisecond per route. An overrun (ENOBUFS) means that events were lost: a change, too.
        """
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as events:
            events.setblocking(False)  # noqa: FBT003 the standard library takes no keyword
            events.bind((0, _GROUPS))
            loop = asyncio.get_running_loop()
            yield
            while True:
                try:
                    await loop.sock_recv(events, 65536)
                except OSError as failure:
                    if failure.errno != errno.ENOBUFS:
                        raise
                await asyncio.sleep(_SETTLE)
                _drain(events)
                yield

    def _spec(self, route: Route) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "dst": str(route.destination),
            "table": _MAIN,
            "proto": PROTOCOL,
            "priority": route.metric,
            "family": socket.AF_INET if route.destination.version == 4 else socket.AF_INET6,
        }
        if route.device is None:
            return spec | {"type": "unreachable"}
        try:
            return spec | {"oif": socket.if_nametoindex(route.device)}
        except OSError:
            raise DeviceGone(f"there is no device {route.device}") from None

    async def _write(self, what: str, command: str, **spec: Any) -> None:
        async with self._one_at_a_time:
            await getattr(self._netlink, what)(command, **spec)
        self.writes += 1

    async def _dump(self, what: str, **filters: Any) -> list[Any]:
        for _ in range(_DUMP_TRIES):
            try:
                async with self._one_at_a_time:
                    messages = [message async for message in await getattr(self._netlink, what)(**filters)]
            except NetlinkError as failure:
                if filters.get("family") == socket.AF_INET6 and failure.code in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
                    return []
                raise _error(failure, f"read the kernel's tables ({what})", None) from None
            if not any(message["header"]["flags"] & _INTERRUPTED for message in messages):
                return messages
        raise Refused(f"the kernel's tables change too fast to be read ({what})")


def _drain(events: socket.socket) -> None:
    while True:
        try:
            events.recv(65536)
        except BlockingIOError:
            return
        except OSError as failure:
            if failure.errno != errno.ENOBUFS:
                raise


def _error(failure: NetlinkError, what: str, device: str | None) -> DeviceGone | Refused:
    text = os.strerror(failure.code)
    if device is not None and failure.code in _NOT_THERE:
        return DeviceGone(f"cannot {what}: {device} is absent or down ({text})")
    hint = ": this needs CAP_NET_ADMIN" if failure.code == errno.EPERM else ""
    return Refused(f"cannot {what}: {text}{hint}")


def _destination(message: Any) -> Network:
    address = message.get("dst") or ("0.0.0.0" if message["family"] == socket.AF_INET else "::")  # noqa: S104
    return ip_network((address, message["dst_len"]))


def _route(message: Any, names: dict[int, str]) -> Route | None:
    """Return the route as we would have written it, or None where it is not one that we write."""
    destination, metric = _destination(message), message.get("priority") or 0
    if message["type"] == _UNREACHABLE:
        return Route(destination, None, metric)
    device = names.get(message.get("oif") or 0)
    if message["type"] != _UNICAST or device is None or message.get("gateway") or message.get("multipath"):
        return None
    return Route(destination, device, metric)


def _default_device(messages: Iterable[Any], names: dict[int, str]) -> str | None:
    found: list[tuple[int, str]] = []
    for message in messages:
        if message["family"] != socket.AF_INET or message["dst_len"] != 0:
            continue
        name = names.get(message.get("oif") or 0)
        if name is not None:
            found.append((message.get("priority") or 0, name))
    return min(found)[1] if found else None


def _devices(links: Iterable[Any], addresses: Iterable[Any]) -> dict[str, Device]:
    held: dict[int, list[Address]] = {}
    for message in addresses:
        text = message.get("local") or message.get("address")  # point to point: `address` is the far end
        if text:
            held.setdefault(message["index"], []).append(ip_interface(f"{text}/{message['prefixlen']}"))
    devices = {}
    for message in links:
        name, index = message.get("ifname"), message["index"]
        devices[name] = Device(
            name=name,
            index=index,
            up=bool(message["flags"] & _IFF_UP),
            carrier=bool(message.get("carrier")),
            addresses=tuple(held.get(index, ())),
            alias=message.get("ifalias") or "",
            kind=message.get(("linkinfo", "kind")) or "",
        )
    return devices
