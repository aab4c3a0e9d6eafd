"""A data plane that ends takes the carrier away, however it came to that: a device must not swallow packets."""

import base64
import json
import socket
import threading
import time

import pytest

from appliance.tunnel import frame, tun, unit
from appliance.tunnel.keys import Direction, Session
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


def test_orders_about_the_keys_of_a_session_that_is_over_change_nothing_in_the_next(pair, carrier):
    parent, worker = pair
    old, new = (Session.agree(bytes([number]) * 8, b"c" * 32, b"s" * 32) for number in range(2))
    for session in (old, new):
        order = {"role": "client", "sources": [], "connections": 1, "mode": "stream"}
        tell(parent, "session", session, **order, secret=text(session))
    later = old.renew(b"C" * 32, b"S" * 32)
    tell(parent, "epoch", old, epoch=1, secret=text(later), switch=True)
    tell(parent, "switch", old)
    fresh = new.renew(b"C" * 32, b"S" * 32)
    tell(parent, "epoch", new, epoch=1, secret=text(fresh), switch=False)
    while worker._session is None or worker._session._next is None:
        worker._turn()
    assert (worker._session.keys, worker._session._next) == (new, fresh)
    tell(parent, "switch", new)
    while worker._session.keys == new:
        worker._turn()
    assert worker._session.keys == fresh
    assert worker._counters["rekeys"] == 1


def test_a_parent_that_does_not_listen_loses_reports_and_the_packets_do_not_wait_for_it(pair, carrier):
    parent, worker = pair
    worker._turn()  # it takes the device

    def report() -> None:
        while not worker._counters["lost_reports"]:
            worker._tell("counters", counters={})

    reporting = threading.Thread(target=report, daemon=True)
    reporting.start()
    reporting.join(10)
    assert not reporting.is_alive()
    parent.close()
    worker.run()
    assert carrier.told == [False]


def test_an_authentic_datagram_of_nonsense_from_a_new_address_costs_only_itself(pair, carrier):
    parent, worker = pair
    session = Session.agree(b"sessions", b"c" * 32, b"s" * 32)
    tell(parent, "session", session, role="server", sources=[], connections=1, mode="hybrid", secret=text(session))
    sealed = memoryview(bytearray(200))
    prefix, length = unit.Sealer(session, Direction.TO_SERVER).seal(frame.Kind.DATA, b"\xff" * 20, sealed)
    ((head, part),) = unit.Cuts(sealed, 1400).of(prefix, length, 1)
    datagram = base64.b64encode(bytes(head) + bytes(part)).decode()
    tell(parent, "stray", session, datagram=datagram, address=["192.0.2.1", 1])
    while not worker._counters["drop_nonsense"]:
        worker._turn()
    assert worker._session is not None


def test_the_last_connection_that_falls_silent_ends_the_session_and_nothing_is_probed_any_more(pair, carrier):
    parent, worker = pair
    session = Session.agree(b"sessions", b"c" * 32, b"s" * 32)
    tell(parent, "session", session, role="client", sources=[], connections=1, mode="hybrid", secret=text(session))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.connect(listener.getsockname())
        for what, sock in (("connection", near), ("datagram", udp)):
            order = {"do": what, "session": session.session_id.hex(), "connection": 0}
            socket.send_fds(parent, [json.dumps(order).encode()], [sock.fileno()])
        while worker._session is None or worker._session.datagram.fd < 0:
            worker._turn()
        worker._session.datagram.waiting = True
        worker._keep_time(time.monotonic() + 60)
    assert worker._session is None


def tell(parent: socket.socket, what: str, session: Session, **more: object) -> None:
    parent.send(json.dumps({"do": what, "session": session.session_id.hex(), **more}).encode())


def text(session: Session) -> str:
    return base64.b64encode(session.secret).decode()
