"""Routes, devices and their changes, over netlink. We write and remove only routes that carry our protocol number.

Devices and addresses, which are few, are read by pyroute2; routes, of which each CIDR has two, by fib.py.

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

from appliance.kernel import fib
from appliance.kernel.netlink import Interrupted, Message, Talk
from appliance.kernel.state import PROTOCOL, Address, Device, DeviceGone, KernelState, Refused, Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from types import TracebackType

_EVERYTHING: Final = ip_network("0.0.0.0/0")
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
        self._talk: Talk
        self._one_at_a_time = asyncio.Lock()  # a second dump on one netlink socket is EBUSY

    async def __aenter__(self) -> Self:
        self._netlink = await AsyncIPRoute().__aenter__()
        self._talk = Talk(socket.NETLINK_ROUTE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._talk.close()
        netlink, self._netlink = self._netlink, None
        await netlink.__aexit__(kind, error, trace)

    async def observe(self) -> KernelState:
        """Read devices, addresses and both families' main tables."""
        links = await self._dump("get_links")
        addresses = await self._dump("get_addr")
        devices = _devices(links, addresses)
        names = {device.index: device.name for device in devices.values()}
        bodies = [*self._table(socket.AF_INET), *self._table(socket.AF_INET6)]
        entries = [(body, entry) for body in bodies if (entry := fib.entry(body)) is not None]
        others = [entry for _, entry in entries if entry.protocol != PROTOCOL and entry.kind == fib.UNICAST]
        ours = (fib.route(body, names.get(entry.device)) for body, entry in entries if entry.protocol == PROTOCOL)
        return KernelState(
            routes=frozenset(route for route in ours if route is not None),
            foreign=frozenset(entry.destination for entry in others),
            devices=devices,
            default_device=_default_device(others, names),
        )

    async def add(self, route: Route) -> None:
        """Install `route`; one of ours with the same destination and metric gives way to it.

        Raise `DeviceGone` when the device is absent or down (the kernel takes no route to a device that is down; one
        that is up without carrier will do), `Refused` when somebody else's route is in the way.
        """
        index = _index(route)
        try:
            self._send(fib.add(route, index))
        except FileExistsError:
            await self._displace(route, index)
        except OSError as failure:
            raise _error(failure, f"add the route to {route.destination}", route.device) from None

    async def _displace(self, route: Route, index: int) -> None:
        if route in (await self.observe()).routes:
            return
        there = map(fib.entry, self._table(fib.family_of(route.destination)))
        held = [
            entry for entry in there if entry and (entry.destination, entry.metric) == (route.destination, route.metric)
        ]
        if any(entry.protocol != PROTOCOL for entry in held):
            raise Refused(
                f"a route to {route.destination} with metric {route.metric} is there that is not ours: remove it, or "
                f"give it another metric (ip route show {route.destination})"
            )
        try:
            self._send(fib.add(route, index, replace=True))
        except OSError as failure:
            raise _error(failure, f"replace the route to {route.destination}", route.device) from None

    async def remove(self, route: Route) -> None:
        """Remove `route`; none there, or no such device any more, is no error."""
        try:
            self._send(fib.remove(route, _index(route)))
        except DeviceGone:
            return  # its routes went with it
        except OSError as failure:
            if failure.errno in _ALREADY_GONE:
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
            async with self._one_at_a_time:
                await self._netlink.link("del", index=device.index)
            self.writes += 1
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

    def _send(self, message: Message) -> None:
        self._talk.do(message)
        self.writes += 1

    def _table(self, family: int) -> list[bytes]:
        """Return a dump of the main table."""
        for _ in range(_DUMP_TRIES):
            try:
                return self._talk.dump(fib.dump(family))
            except Interrupted:
                continue
            except OSError as failure:
                if family == socket.AF_INET6 and failure.errno in {errno.EOPNOTSUPP, errno.EAFNOSUPPORT}:
                    return []
                raise _error(failure, "read the kernel's routes", None) from None
        raise Refused("the kernel's routes change too fast to be read")

    async def _dump(self, what: str, **filters: Any) -> list[Any]:
        for _ in range(_DUMP_TRIES):
            try:
                async with self._one_at_a_time:
                    messages = [message async for message in await getattr(self._netlink, what)(**filters)]
            except NetlinkError as failure:
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


def _error(failure: NetlinkError | OSError, what: str, device: str | None) -> DeviceGone | Refused:
    code = failure.code if isinstance(failure, NetlinkError) else failure.errno or 0
    text = os.strerror(code)
    if device is not None and code in _NOT_THERE:
        return DeviceGone(f"cannot {what}: {device} is absent or down ({text})")
    hint = ": this needs CAP_NET_ADMIN" if code == errno.EPERM else ""
    return Refused(f"cannot {what}: {text}{hint}")


def _index(route: Route) -> int:
    """Return the number of the route's device, 0 where it has none."""
    if route.device is None:
        return 0
    try:
        return socket.if_nametoindex(route.device)
    except OSError:
        raise DeviceGone(f"there is no device {route.device}") from None


def _default_device(entries: Iterable[fib.Entry], names: Mapping[int, str]) -> str | None:
    found = [
        (entry.metric, names[entry.device])
        for entry in entries
        if entry.destination == _EVERYTHING and entry.device in names
    ]
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
