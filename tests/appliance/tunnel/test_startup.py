"""When BBR is held to what it has measured, and when it is let go."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.startup import SIZE, UNLIMITED, StartUp

CC_INFO, MAX_PACING_RATE = 26, 47  # linux/tcp.h, asm-generic/socket.h
START, PROBE = 739, 320
BANDWIDTH = 25_000_000
LEAST = 0.1
BUSY = 1.2 * LEAST


def told(gain=START, bandwidth=BANDWIDTH, least=LEAST):
    """Return what the kernel says of a connection."""
    return struct.pack("=QIII", bandwidth, int(least * 1e6), gain, gain)


def limits(start_up, *looks):
    """Return what is said at each of these looks: round trip and time."""
    return [start_up.limit(told(), rtt, now) for rtt, now in looks]


def test_it_is_held_once_something_has_waited_on_the_line_for_four_round_trips():
    assert limits(StartUp(), (BUSY, 10.0), (BUSY, 10.4), (BUSY, 10.5)) == [UNLIMITED, UNLIMITED, BANDWIDTH]


def test_a_stall_in_between_does_not_count():
    assert set(limits(StartUp(), (BUSY, 10.0), (LEAST, 10.4), (BUSY, 10.5), (BUSY, 10.9))) == {UNLIMITED}


def test_it_stays_held_when_the_line_has_drained():
    assert limits(StartUp(), (BUSY, 10.0), (BUSY, 11.0), (LEAST, 12.0)) == [UNLIMITED, BANDWIDTH, BANDWIDTH]


def test_it_is_let_go_when_it_has_left_its_start_up():
    start_up = StartUp()
    assert limits(start_up, (BUSY, 10.0), (BUSY, 11.0))[-1] == BANDWIDTH
    assert start_up.limit(told(PROBE), BUSY, 12.0) == UNLIMITED
    assert start_up.limit(told(), BUSY, 12.1) == UNLIMITED, "and what was before counts no more"


def test_a_kernel_that_tells_nothing_is_left_alone():
    assert StartUp().limit(b"", BUSY, 10.0) == UNLIMITED


def test_a_connection_that_has_measured_nothing_yet_is_not_held():
    start_up = StartUp()
    for now in (10.0, 11.0):
        assert start_up.limit(told(bandwidth=0), BUSY, now) == UNLIMITED


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), max_size=20))
def test_out_of_its_start_up_it_is_never_held(looks):
    start_up = StartUp()
    assert all(start_up.limit(told(PROBE), rtt, now) == UNLIMITED for rtt, now in looks)


@given(st.integers(1, 1 << 40), st.floats(0.11, 1))
def test_a_limit_is_what_setsockopt_takes(bandwidth, rtt):
    start_up = StartUp()
    start_up.limit(told(bandwidth=bandwidth), 2 * rtt, 10.0)
    limit = start_up.limit(told(bandwidth=bandwidth), 2 * rtt, 20.0)
    assert limit == min(bandwidth, (1 << 31) - 1)


def test_the_kernel_tells_this_of_a_connection_and_takes_both_limits():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            try:
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
            except OSError:
                pytest.skip("this kernel has no BBR")
            near.send(b"something to measure")
            far.recv(64)
            bandwidth, least, gain, _ = struct.unpack("=QIII", near.getsockopt(socket.IPPROTO_TCP, CC_INFO, SIZE))
            assert bandwidth > 0
            assert least < 1e6
            assert gain == START
            for limit in (BANDWIDTH, UNLIMITED):
                near.setsockopt(socket.SOL_SOCKET, MAX_PACING_RATE, limit)
                assert near.getsockopt(socket.SOL_SOCKET, MAX_PACING_RATE) == limit
