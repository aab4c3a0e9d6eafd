"""A TUN's reader, with a socket pair as the device: each message is a virtio header and a packet."""

import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.tunnel import frame, virtio
from appliance.tunnel.buffers import Pool
from appliance.tunnel.fairqueue import FairQueue
from appliance.tunnel.outbound import DeviceBroke, Outbound

SUPER = virtio.HEADER.pack(1, virtio.GSO_TCPV4, 52, 1448, 20, 16)
NOW = 100.0


class Outlet:
    def __init__(self) -> None:
        self.queue = FairQueue(Pool(keep=4), Counter())

    def packets(self) -> list[bytes]:
        """Return all that waits, in its order."""
        out = []
        while (batch := self.queue.pop(0.0)) is not None:
            out += [bytes(packet) for _, _, packet in frame.packets(batch.memory[: batch.length])]
        return out


class World:
    """A device, and two ways: TCP goes one, everything else the other."""

    def __init__(self, device: socket.socket, kernel: socket.socket) -> None:
        self.kernel, self.counters = kernel, Counter[str]()
        self.outbound: Outbound[Outlet] = Outbound(device.fileno(), Pool(keep=4), self.counters)
        self.tcp, self.other = Outlet(), Outlet()
        self.copies: tuple[tuple[int, int], tuple[Outlet, ...]] | None = None
        self.up = True

    def choose(self, _flow: int, tcp: bool, _now: float) -> Outlet | None:
        return (self.tcp if tcp else self.other) if self.up else None

    def spread(
        self, _flow: int, _outlet: object, _length: int, _now: float
    ) -> tuple[tuple[int, int], tuple[Outlet, ...]] | None:
        return self.copies

    def come(self, *packets: bytes, header: bytes = virtio.PLAIN) -> None:
        for packet in packets:
            self.kernel.send(header + packet)


@pytest.fixture
def world() -> Iterator[World]:
    device, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with device, kernel:
        device.setblocking(False)
        yield World(device, kernel)


def ipv4(protocol: int, number: int, length: int = 40) -> bytes:
    head = bytes((0x45, 0)) + length.to_bytes(2) + bytes(5) + bytes((protocol,)) + bytes(2)
    return head + bytes(8) + number.to_bytes(4) + bytes(length - 24)


def test_in_calm_one_packet_is_read_else_all_that_are_there(world):
    packets = [ipv4(17, number) for number in range(10)]
    world.come(*packets)
    assert not world.outbound.fill(world, NOW, calm=True)
    assert world.other.packets() == packets[:1]
    assert not world.outbound.fill(world, NOW)
    assert sorted(world.other.packets()) == packets[1:]
    assert world.counters["tx_packets"] == 10


def test_after_about_a_batch_the_others_have_their_turn(world):
    world.come(*[ipv4(6, number, 40_000) for number in range(3)], header=SUPER)
    assert world.outbound.fill(world, NOW)
    assert len(world.tcp.packets()) == 2
    assert not world.outbound.fill(world, NOW)
    assert len(world.tcp.packets()) == 1
    assert world.counters["tx_super_packets"] == 3


def test_it_tells_once_where_something_waits_that_did_not_before(world):
    world.come(ipv4(17, 1), ipv4(6, 1), ipv4(6, 2), ipv4(17, 2))
    world.outbound.fill(world, NOW)
    assert world.outbound.begun == [world.other, world.tcp]
    world.outbound.begun.clear()
    world.other.packets()
    world.come(ipv4(6, 3), ipv4(17, 3))
    world.outbound.fill(world, NOW)
    assert world.outbound.begun == [world.other]


def test_a_copy_goes_each_way_with_its_ticket(world):
    world.copies = (7, 9), (world.tcp, world.other)
    world.come(packet := ipv4(6, 1))
    world.outbound.fill(world, NOW)
    assert world.outbound.begun == [world.tcp, world.other]
    assert world.tcp.packets() == world.other.packets() == [frame.TICKET.pack(7, 9) + packet]


def test_without_a_way_a_packet_is_dropped_and_counted(world):
    world.up = False
    world.come(ipv4(6, 1))
    world.outbound.fill(world, NOW)
    assert world.counters == {"drop_no_channel": 1}
    assert not world.outbound.begun


def test_a_device_that_is_gone_is_not_taken_for_one_that_is_empty():
    device, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel:
        broken = World(device, kernel)
        device.close()
        with pytest.raises(DeviceBroke):
            broken.outbound.fill(broken, NOW)
