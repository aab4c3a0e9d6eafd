"""What the tests of the legacy ends stand on: a TUN that is a socket pair, and waiting for a condition."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from ipaddress import IPv4Address

from appliance.tunnel.legacy.device import Device

LIMIT = 10.0

KEY = "gtun-cs-token"
HELLO = b'\x00\x31\x05{"version":"1.1.0","os":1,"key":"gtun-cs-token"}'
WELCOME = (
    b'\x00\x7d\x06{"status":"authorize success","access_ip":"100.64.240.50","nameservers":null,'
    b'"gateway":"100.64.240.1","route_script_url":""}'
)
WRONG_KEY = (
    b'\x00\x61\x06{"status":"authorize fail","access_ip":"","nameservers":null,"gateway":"","route_script_url":""}'
)
NO_ADDRESS = (
    b'\x00\x63\x06{"status":"not avaliable ip","access_ip":"","nameservers":null,"gateway":"","route_script_url":""}'
)
HEARTBEAT = b"\x00\x01\x03"
HEARTBEAT_ANSWER = b"\x00\x01\x04"


def packet(source: str, destination: str, payload: bytes = b"") -> bytes:
    """Return an IPv4 packet of protocol 253 (RFC 3692, for experiments)."""
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, 253, 0) + ends + payload


def data(content: bytes) -> bytes:
    """Return the message that carries a packet."""
    return struct.pack("!HB", len(content) + 1, 0) + content


class FakeDevice(Device):
    """A TUN whose kernel is the test: `kernel` is the other end."""

    def __init__(self, name: str = "tun-test") -> None:
        ours, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.kernel.setblocking(False)
        super().__init__(name, ours.detach())
        self.carriers: list[bool] = []
        self.addresses: list[str] = []
        self.used: str | None = None

    @classmethod
    async def open(cls, name):
        return cls(name)

    def configure(self, want):
        assert want.mtu == 1500
        self.addresses.append(str(want.address))

    def occupied(self, subnet, ours):
        return self.used

    def carry(self, *, up):
        self.carriers.append(up)

    @property
    def up(self) -> bool:
        return bool(self.carriers) and self.carriers[-1]

    async def delivered(self) -> bytes:
        """Return the next packet that reached the kernel."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.kernel, 65536), LIMIT)

    def nothing_delivered(self) -> bool:
        try:
            self.kernel.recv(65536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        super().close()
        self.kernel.close()


async def until(condition) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - the condition is in code that knows of no event
            await asyncio.sleep(0.002)


def descriptors() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing's own descriptor counts every time
