"""The TUN of a legacy end: one packet of at most 1500 bytes per read and write, as the originals' TUN has it. Thin.

What comes out of the kernel or off the wire and is no IPv4 packet of that size is dropped and counted: the originals
know nothing else. A device that is gone (`ip link delete`) ends who works with it; whoever runs us starts us again.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Final, Self

from appliance.tunnel import tun

from .message import MTU

_SMALLEST: Final = 20
_TURN: Final = 64
"""Packets that are read before others have their turn."""

_BUSY_TRIES: Final = 100
_BUSY_PAUSE: Final = 0.05


class DeviceGone(Exception):
    """The device was taken away from us."""


class Device:
    """An open TUN. `counters` tell what it read and could not use."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.counters: Counter[str] = Counter()
        self._fd = fd
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, name: str) -> Self:
        """Open the persistent TUN; a predecessor may need a moment to die. Raise `tun.DeviceRefused`."""
        for _ in range(_BUSY_TRIES):
            try:
                return cls(name, tun.attach(name, large=False).fd)
            except tun.DeviceBusy:
                await asyncio.sleep(_BUSY_PAUSE)
        raise tun.DeviceRefused(f"{name} stays busy: is another process running for it?")

    def configure(self, want: tun.Addressing) -> None:
        """Set it up; raise `tun.DeviceRefused`."""
        tun.configure(self.name, want)

    def occupied(self, subnet: IPv4Network, ours: str) -> str | None:
        """Return what else uses the subnet; see `tun.occupied`."""
        return tun.occupied(subnet, ours)

    def carry(self, *, up: bool) -> None:
        """Raise or drop the carrier; raise `tun.DeviceRefused` when the device is gone."""
        try:
            tun.set_carrier(self._fd, up=up)
        except OSError as error:
            raise tun.DeviceRefused(f"{self.name} is gone: {error.strerror}") from None

    def listen(self, ready: Callable[[], None]) -> None:
        """Call `ready`, which reads `packets`, whenever there are some."""
        asyncio.get_running_loop().add_reader(self._fd, self._guarded, ready)

    def ignore(self) -> None:
        """Leave packets where they are."""
        asyncio.get_running_loop().remove_reader(self._fd)

    async def gone(self) -> str:
        """Wait until the device is gone and return what happened."""
        return await asyncio.shield(self._gone)

    def packets(self) -> Iterator[bytes]:
        """Yield the next few packets from the kernel; raise `DeviceGone`."""
        for _ in range(_TURN):
            try:
                packet = os.read(self._fd, MTU + 1)
            except BlockingIOError:
                return
            except OSError as error:
                raise DeviceGone(f"{self.name} broke: {error.strerror}") from None
            if not packet:
                raise DeviceGone(f"{self.name} ended")
            if sound(packet):
                yield packet
            else:
                self.counters["drop_shape"] += 1

    def deliver(self, packet: memoryview, counters: Counter[str], source: bytes | None = None) -> None:
        """Hand the kernel a packet from the wire, if it is one, and from `source` where that is given."""
        if not sound(packet):
            counters["drop_shape"] += 1
        elif source is not None and packet[12:16] != source:
            counters["drop_source"] += 1
        else:
            try:
                os.write(self._fd, packet)
            except OSError as error:
                counters["drop_device_" + errno.errorcode.get(error.errno or 0, "other").lower()] += 1
            else:
                counters["rx_packets"] += 1
                counters["rx_bytes"] += len(packet)

    def close(self) -> None:
        """Let go of it, once; device, addresses and routes stay, the carrier falls."""
        if self._fd >= 0:
            self.ignore()
            os.close(self._fd)
            self._fd = -1

    def _guarded(self, ready: Callable[[], None]) -> None:
        try:
            ready()
        except DeviceGone as error:
            self.ignore()
            if not self._gone.done():
                self._gone.set_result(str(error))


def sound(packet: bytes | memoryview) -> bool:
    """Return whether this is IPv4 of a size that the protocol carries. The kernel looks at all the rest."""
    return _SMALLEST <= len(packet) <= MTU and packet[0] >> 4 == 4
