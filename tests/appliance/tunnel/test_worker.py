"""A data plane that ends takes the carrier away, however it came to that: a device must not swallow packets."""

import json
import socket

import pytest

from appliance.tunnel import tun
from appliance.tunnel.worker import Worker


class Carrier:
    """What the kernel was told of the device's carrier."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def set(self, _fd: int, *, up: bool) -> None:
        self.told.append(up)


@pytest.fixture
def carrier(monkeypatch):
    carrier = Carrier()
    monkeypatch.setattr(tun, "set_carrier", carrier.set)
    return carrier


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, kernel:
        socket.send_fds(ours, [json.dumps({"do": "device"}).encode()], [device.fileno()])
        device.close()
        yield ours, Worker(theirs)


def test_a_parent_that_closed_its_end(pair, carrier):
    parent, worker = pair
    parent.close()
    worker.run()
    assert carrier.told == [False]


def test_a_parent_that_died_with_reports_unread(pair, carrier):
    """The kernel then resets the socket pair instead of ending it."""
    parent, worker = pair
    worker._turn()  # it takes the device, and makes its first report
    parent.close()
    worker.run()
    assert carrier.told == [False]


def test_a_mistake_of_ours(pair, carrier):
    parent, worker = pair
    parent.send(json.dumps({"do": "something unheard of"}).encode())
    with pytest.raises(KeyError):
        worker.run()
    assert carrier.told == [False]
