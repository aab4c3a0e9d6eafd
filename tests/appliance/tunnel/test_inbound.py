"""What came goes to a TUN, here a socket pair that keeps packets apart as a TUN does."""

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.tunnel import frame, virtio
from appliance.tunnel.allow import Sources
from appliance.tunnel.buffers import Batch
from appliance.tunnel.inbound import Inbound

ANYWHERE = Sources([])
TAG = 7


def packet(number: int) -> bytes:
    """Return an IPv4 packet of a protocol that nobody merges."""
    addresses = ipaddress.ip_address("10.0.0.1").packed + ipaddress.ip_address("10.0.0.2").packed
    return bytes([0x45, 0, 0, 24, 0, 0, 0, 0, 64, 99, 0, 0]) + addresses + number.to_bytes(4)


def batch(*numbers: int, copies: bool = True) -> memoryview:
    whole = Batch()
    for number in numbers:
        one = Batch()
        if copies:
            one.copy((TAG, number), 0, 0, memoryview(packet(number)), 0.0)
        else:
            one.room[: len(packet(number))] = packet(number)
            one.put(0, 0, len(packet(number)), 0.0)
        whole.take(one, 0.0)
    return whole.memory[: whole.length]


class Device:
    """An `Inbound`, and what the kernel got from it."""

    def __init__(self, ours: socket.socket, kernel: socket.socket) -> None:
        self.counters = Counter[str]()
        self.inbound = Inbound(ours.fileno(), self.counters)
        self._kernel = kernel
        kernel.setblocking(False)

    def deliver(self, content: memoryview, *, ordered: bool) -> list[int]:
        """Return the numbers of the packets that were written."""
        self.inbound.deliver(content, ANYWHERE, ordered=ordered)
        got = []
        while True:
            try:
                got.append(int.from_bytes(self._kernel.recv(4096)[virtio.HEADER.size + 20 :]))
            except BlockingIOError:
                return got


@pytest.fixture
def device() -> Iterator[Device]:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        yield Device(ours, kernel)


def test_what_a_datagram_brings_waits_for_what_a_connection_has(device):
    assert device.deliver(batch(2, 3), ordered=False) == []
    assert device.deliver(batch(1), ordered=True) == [1, 2, 3]
    assert device.deliver(batch(2, 3, 4), ordered=True) == [4]
    assert device.counters["rx_copies"] == 2


def test_packets_that_have_no_copies_wait_for_nothing(device):
    assert device.deliver(batch(2), ordered=False) == []
    assert device.deliver(batch(9, 8, copies=False), ordered=False) == [9, 8]


def test_a_ticket_that_is_cut_off_is_an_error_of_the_peer(device):
    cut = frame.PACKET.pack(frame.COPY << 24 | 4, 0) + bytes(4)
    with pytest.raises(frame.RemoteProtocolError):
        device.deliver(memoryview(cut), ordered=True)


def test_a_session_counts_its_flows_anew(device):
    assert device.deliver(batch(1, 2, 3), ordered=True) == [1, 2, 3]
    device.inbound.begin()
    assert device.deliver(batch(1), ordered=True) == [1]
