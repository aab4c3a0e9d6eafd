import base64
import itertools
import socket
import struct
import time
from collections import Counter
from typing import Any, cast

import pytest

from appliance.tunnel.buffers import Pool
from appliance.tunnel.channels import Session
from appliance.tunnel.liveness import Liveness
from appliance.tunnel.stream import Stream

NOW = time.monotonic()


class FakeStream:
    """A connection, as far as choosing one needs it."""

    def __init__(self) -> None:
        self.liveness = Liveness(0.0)
        self.rtt, self.rate = 0.1, 1
        self.sent, self.sent_again = 10_000, 100


def session(mode: str, connections: int = 4) -> Session:
    message: dict[str, Any] = {
        "session": b"sessions".hex(),
        "secret": base64.b64encode(b"s" * 32).decode(),
        "role": "client",
        "sources": [],
        "mode": mode,
        "connections": connections,
    }
    return Session(message, Pool(keep=1), Counter(), 0.0)


def streams(into: Session, count: int = 4) -> list[Stream]:
    made = [cast("Stream", FakeStream()) for _ in range(count)]
    for number, stream in enumerate(made):
        into.put(number, stream)
    return made


@pytest.fixture
def udp_passes(monkeypatch):
    def passes(of: Session, yes: bool) -> None:
        of.datagram.usable_until = NOW + 1000 if yes else 0.0

    return passes


def test_hybrid_sends_tcp_by_stream_and_the_rest_by_datagram(udp_passes):
    chosen = session("hybrid")
    made = streams(chosen)
    udp_passes(chosen, True)
    assert chosen.choose(7, True, NOW) is made[3]
    assert chosen.choose(7, False, NOW) is chosen.datagram


@pytest.mark.parametrize("mode", ["hybrid", "datagram"])
def test_everything_goes_by_stream_while_udp_does_not_pass_and_back_when_it_does(udp_passes, mode):
    chosen = session(mode)
    made = streams(chosen)
    udp_passes(chosen, False)
    assert chosen.choose(5, False, NOW) is made[1]
    udp_passes(chosen, True)
    assert chosen.choose(5, False, NOW) is chosen.datagram


def test_stream_mode_never_uses_datagrams(udp_passes):
    chosen = session("stream")
    made = streams(chosen)
    udp_passes(chosen, True)
    assert {chosen.choose(flow, tcp, NOW) for flow, tcp in itertools.product(range(8), (True, False))} == set(made)


def test_a_flow_keeps_its_slot_when_another_connection_is_replaced():
    chosen = session("stream")
    made = streams(chosen)
    assert chosen.remove(made[1]) == 1
    assert [chosen.choose(flow, True, NOW) for flow in (0, 2, 3)] == [made[0], made[2], made[3]]
    assert chosen.choose(1, True, NOW) in made
    again = cast("Stream", FakeStream())
    chosen.put(5, again)
    assert chosen.choose(1, True, NOW) is again


def test_a_lost_connection_is_lost_once():
    chosen = session("stream")
    made = streams(chosen)
    assert chosen.remove(made[2]) == 2
    assert chosen.remove(made[2]) is None


def test_without_any_channel_there_is_no_choice_and_in_the_end_no_session():
    chosen = session("hybrid")
    assert chosen.choose(0, True, NOW) is None
    assert not chosen.dead(9.9)
    assert chosen.dead(10.0)
    streams(chosen)
    assert not chosen.dead(1000.0)


@pytest.mark.parametrize(("silence", "over"), [(0.5, False), (2.9, False), (3.0, True)])
def test_without_connections_it_is_over_only_after_three_seconds_without_a_datagram_either(silence, over):
    """On a line that loses a fifth, one second of silence is nothing."""
    chosen = session("hybrid")
    chosen.datagram.attach(connected())
    chosen.datagram.liveness.echoed(struct.pack("!d", 99.9), 100.0)
    assert chosen.lives(100.0 + silence) is not over
    assert chosen.dead(100.0 + silence) is over
    chosen.datagram.close()


def test_where_no_datagram_ever_passed_it_is_over_with_the_last_connection():
    chosen = session("hybrid")
    chosen.datagram.attach(connected())
    (made,) = streams(chosen, 1)
    assert chosen.lives(1.0)
    chosen.remove(made)
    assert not chosen.lives(1.0)
    chosen.datagram.close()


def connected() -> socket.socket:
    """Return a UDP socket with a peer, where nobody listens."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.connect(("127.0.0.1", 9))
    return made


def test_on_a_long_lossy_line_a_young_flow_goes_over_every_connection_and_then_over_the_fastest():
    chosen = session("stream")
    made = streams(chosen)
    cast("Any", made[2]).rate = 9
    spread = chosen.spread(7, made[3], 1000, 1.0)
    assert spread is not None
    assert spread[0] is not None
    assert set(spread[1]) == set(made)
    for _ in range(1200):
        spread = chosen.spread(7, made[3], 1000, 1.0)
    assert spread == (None, (made[2],))


def test_where_udp_passes_a_young_flow_goes_by_datagram_too_and_soon_over_one_connection(udp_passes):
    chosen = session("hybrid")
    made = streams(chosen)
    udp_passes(chosen, True)
    cast("Any", made[2]).rate = 9
    ways = [chosen.spread(7, made[3], 1000, 1.0) for _ in range(4500)]
    assert ways[0] is not None
    assert set(ways[0][1]) == {*made, chosen.datagram}
    assert ways[2000] is not None
    assert ways[2000][0] is not None
    assert set(ways[2000][1]) == {made[2], chosen.datagram}
    assert ways[-1] == (None, (made[2],))


def test_a_young_flow_in_stream_mode_goes_over_connections_alone(udp_passes):
    chosen = session("stream")
    made = streams(chosen)
    udp_passes(chosen, True)
    spread = chosen.spread(7, made[3], 1000, 1.0)
    assert spread is not None
    assert set(spread[1]) == set(made)


@pytest.mark.parametrize("change", [{"rtt": 0.001}, {"sent_again": 0}], ids=str)
def test_on_a_short_or_a_clean_line_a_flow_goes_its_one_way(change):
    chosen = session("stream")
    for stream in (made := streams(chosen)):
        vars(stream).update(change)
    assert chosen.spread(7, made[3], 1000, 1.0) is None


def test_a_line_with_one_connection_has_no_copies():
    chosen = session("stream", 1)
    (only,) = streams(chosen, 1)
    assert chosen.spread(7, only, 1000, 1.0) is None
