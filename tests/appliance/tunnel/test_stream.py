"""Two ends of a stream connection, joined by a real TCP connection on the loopback."""

import select
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from appliance.tunnel import frame, startup
from appliance.tunnel.buffers import Pool
from appliance.tunnel.keys import Direction, Opener, Sealer, Session
from appliance.tunnel.liveness import Liveness
from appliance.tunnel.stream import Stream

SESSION = Session.agree(b"sessions", b"c" * 32, b"s" * 32)
LONG_LINE, SHORT_LINE = 0.1, 0.001
MAX_PACING_RATE = 47  # asm-generic/socket.h
SLOW, FAST = 1000, 1 << 30


class End(Stream):
    """An end that takes the line to be what the test says."""

    def __init__(self, sock: socket.socket, direction: Direction, rtt: float, rate: int) -> None:
        self.line, self.begun_anew = (rtt, rate), 0
        sealer, opener = Sealer(SESSION, direction, 0), Opener(SESSION, direction.opposite, 0)
        super().__init__(sock, sealer, opener, Pool(keep=4), Liveness(0.0), Counter())

    def _tune(self, now: float) -> None:
        super()._tune(now)
        self.rtt, self.rate = self.line

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self.begun_anew += 1


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def exchange(near: End, far: End) -> list[int]:
    """Flush until nothing is left; return the kinds of records that came."""
    kinds: list[int] = []
    done = False
    while not done or select.select([far.fd], [], [], 0.1)[0]:
        done = near.flush()
        kinds += [kind for kind, _ in far.receive()]
    return kinds


def test_an_idle_long_line_is_filled_until_the_budget_is_spent(sockets):
    near, far = End(sockets[0], Direction.TO_SERVER, LONG_LINE, SLOW), End(sockets[1], Direction.TO_CLIENT, 0, 0)
    if not sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).startswith(b"bbr"):
        pytest.skip("this kernel has no BBR")
    kinds = exchange(near, far)
    assert set(kinds) == {frame.Kind.FILLER}
    assert 1_000_000 < len(kinds) * 4096 <= 1_504_000
    assert exchange(near, far) == []


@pytest.mark.parametrize("line", [(SHORT_LINE, SLOW), (LONG_LINE, FAST)], ids=["short", "known"])
def test_a_line_that_is_short_or_known_to_be_fast_is_not_filled(sockets, line):
    near, far = End(sockets[0], Direction.TO_SERVER, *line), End(sockets[1], Direction.TO_CLIENT, 0, 0)
    assert exchange(near, far) == []


def test_packets_go_before_filler(sockets):
    near, far = End(sockets[0], Direction.TO_SERVER, LONG_LINE, SLOW), End(sockets[1], Direction.TO_CLIENT, 0, 0)
    batch = Pool(keep=1).take()
    batch.room[:6] = b"packet"
    batch.put(0, 0, 6, 0.0)
    near.queue.put(batch, 1, 0.0)
    near.say(frame.Kind.PROBE, b"12345678")
    assert exchange(near, far)[:2] == [frame.Kind.PROBE, frame.Kind.DATA]


@pytest.mark.parametrize(
    ("line", "silence", "anew"),
    [((LONG_LINE, FAST), 9.0, 1), ((LONG_LINE, FAST), 0.0, 0), ((SHORT_LINE, FAST), 9.0, 0)],
    ids=["after a silence", "in use", "short"],
)
def test_what_is_known_of_a_long_line_is_forgotten_after_a_silence(sockets, line, silence, anew):
    near, far = End(sockets[0], Direction.TO_SERVER, *line), End(sockets[1], Direction.TO_CLIENT, 0, 0)
    congestion = sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    if not congestion.startswith(b"bbr"):
        pytest.skip("this kernel has no BBR")
    near._carried_at -= silence
    near._hold_to(FAST)
    for _ in range(2):
        batch = Pool(keep=1).take()
        batch.put(0, 0, 6, 0.0)
        near.queue.put(batch, 1, 0.0)
        assert exchange(near, far) == [frame.Kind.DATA]
    assert near.begun_anew == anew
    assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == congestion
    assert sockets[0].getsockopt(socket.SOL_SOCKET, MAX_PACING_RATE) == (startup.UNLIMITED if anew else FAST)
