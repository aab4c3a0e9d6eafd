"""Two datagram channels joined by real UDP sockets on the loopback."""

import select
import socket
import struct
from collections import Counter, deque

import pytest

from appliance.tunnel import frame, unit
from appliance.tunnel.buffers import Batch, Pool
from appliance.tunnel.datagram import Datagram
from appliance.tunnel.intake import REPORT
from appliance.tunnel.keys import Direction, Session
from appliance.tunnel.liveness import Liveness

SESSION = Session.agree(b"sessions", b"c" * 32, b"s" * 32)


def sockets() -> tuple[socket.socket, socket.socket]:
    ends = tuple(socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for end in ends:
        end.bind(("127.0.0.1", 0))
    ends[0].connect(ends[1].getsockname())
    ends[1].connect(ends[0].getsockname())
    return ends[0], ends[1]


class End:
    def __init__(self, direction: Direction, *, gso: bool = True, mtu: int = 1500) -> None:
        self.pool, self.counters = Pool(keep=8), Counter[str]()
        self.channel = Datagram(SESSION, direction, self.pool, Liveness(0.0), self.counters, gso=gso, mtu=mtu)

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            batch: Batch = self.pool.take()
            batch.room[: len(packet)] = packet
            batch.put(0, 0, len(packet), 0.0)
            self.channel.queue.put(batch, 1, 0.0)
        self.flush()

    def flush(self) -> None:
        while not self.channel.flush():
            select.select([], [self.channel.fd], [], 5)

    def receive(self, count: int) -> list[tuple[int, bytes]]:
        """Return `count` packets, or probes and echoes, as they come."""
        got: list[tuple[int, bytes]] = []
        while len(got) < count:
            assert select.select([self.channel.fd], [], [], 5)[0], f"only {len(got)} of {count} came"
            for kind, plain in self.channel.receive():
                if kind == frame.Kind.DATA:
                    got += [(kind, bytes(packet)) for _, _, packet in frame.packets(plain)]
                else:
                    got.append((kind, bytes(plain)))
        return got


@pytest.fixture(params=[True, False], ids=["gso", "no-gso"])
def ends(request):
    client, server = End(Direction.TO_SERVER, gso=request.param), End(Direction.TO_CLIENT)
    for end, sock in zip((client, server), sockets(), strict=True):
        end.channel.attach(sock)
    yield client, server
    client.channel.close()
    server.channel.close()


@pytest.mark.parametrize("sizes", [[100], [64] * 300, [1500] * 40, [65_000], [65_535, 20, 9000]])
def test_packets_of_every_size_arrive_as_they_were_sent(ends, sizes):
    client, server = ends
    packets = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    client.send(*packets)
    assert [packet for _, packet in server.receive(len(packets))] == packets


def test_an_echo_brings_the_round_trip_and_what_arrived(ends):
    client, server = ends
    client.channel.say(frame.Kind.PROBE, b"12345678")
    client.flush()
    [(kind, payload)] = server.receive(1)
    assert (kind, payload) == (frame.Kind.PROBE, b"12345678")
    server.channel.say(frame.Kind.ECHO, payload)
    server.flush()
    [(kind, payload)] = client.receive(1)
    assert kind == frame.Kind.ECHO
    client.channel.echoed(payload, 1.0)
    assert client.channel.liveness.alive


def test_a_channel_that_is_given_another_socket_goes_on_counting(ends):
    client, server = ends
    client.send(b"a" * 100)
    server.receive(1)
    for end, sock in zip((client, server), sockets(), strict=True):
        end.channel.attach(sock)
    client.send(b"b" * 100)
    assert server.receive(1) == [(0, b"b" * 100)]


def test_a_peer_with_datagrams_of_another_size_is_understood():
    client, server = End(Direction.TO_SERVER, mtu=1280), End(Direction.TO_CLIENT)
    for end, sock in zip((client, server), sockets(), strict=True):
        end.channel.attach(sock)
    for round_ in range(3):
        client.send(bytes([round_]) * 30_000)
        assert server.receive(1) == [(0, bytes([round_]) * 30_000)]
    client.channel.close()
    server.channel.close()


def test_after_many_single_datagrams_joined_ones_are_still_understood(ends):
    client, server = ends
    for size in [100] * 50 + [60_000] * 3 + [100] * 50 + [9000]:
        client.send(b"x" * size)
        assert server.receive(1) == [(0, b"x" * size)]
    assert not server.counters


def test_a_stray_datagram_is_counted_and_nothing_else(ends):
    client, server = ends
    for stray in (b"", b"x", bytes(28), bytes(1200)):
        client.channel._sock.send(stray)
    client.send(b"real" * 10)
    assert server.receive(1) == [(0, b"real" * 10)]
    assert server.counters["drop_malformed"] >= 3


def test_parts_forged_in_units_to_come_spoil_none_and_make_units_small():
    client, server = End(Direction.TO_SERVER, gso=False), End(Direction.TO_CLIENT)
    for end, sock in zip((client, server), sockets(), strict=True):
        end.channel.attach(sock)
    size, line = 1500 - 28 - unit.OVERHEAD, client.channel._sock
    assert line is not None
    packets = [bytes([number]) * 40_000 for number in range(20)]
    sealed = frame.PACKET.size + len(packets[0]) + frame.TAG
    for packet in packets:  # whoever forges knows what is in clear: the id, the counter, the lengths
        prefix = unit.PREFIX.pack(frame.VERSION, 0, 0, SESSION.session_id, client.channel._sealer.counter, sealed)
        for number in range(3):
            line.send(prefix + unit.PLACE.pack(size, number) + b"evil" * (size // 4))
        client.send(packet)
        assert server.receive(1) == [(0, packet)]
    for _ in range(2):
        client.channel.say(frame.Kind.PROBE, b"12345678")
        client.flush()
        [(_, payload)] = server.receive(1)
        server.channel.say(frame.Kind.ECHO, payload)
        server.flush()
        [(_, payload)] = client.receive(1)
        client.channel.echoed(payload, 1.0)
    assert server.counters["drop_forged"] >= len(packets)
    assert (client.channel.state["unit_bytes"] or 0) < frame.BATCH
    client.channel.close()
    server.channel.close()


def test_a_copy_is_sent_whole_and_bears_the_loss_of_a_datagram():
    client, server = End(Direction.TO_SERVER, gso=False), End(Direction.TO_CLIENT)
    near, line = sockets()
    far, out = sockets()
    client.channel.attach(near)
    server.channel.attach(far)
    client.channel._sizing.limit = 1000
    packet = bytes(range(250)) * 100
    batch = client.pool.take()
    batch.copy((7, 1), 0, 0, memoryview(packet), 0.0)
    client.channel.queue.put(batch, 1, 0.0)
    client.flush()
    datagrams = [line.recv(2000) for _ in range(-(-len(packet) // 1400) + 3)]
    for datagram in (*datagrams[:4], *datagrams[5:]):
        out.send(datagram)
    [(_, came)] = server.receive(1)
    assert came == frame.TICKET.pack(7, 1) + packet
    assert not server.counters
    for sock in (near, line, far, out):
        sock.close()


def test_probes_that_nobody_takes_fill_no_memory(ends):
    client, _ = ends
    for number in range(10_000):
        client.channel.say(frame.Kind.PROBE, number.to_bytes(8))
    assert len(client.channel.urgent) < 100


def test_a_probe_that_is_too_long_for_its_echo_is_dropped(ends):
    client, _ = ends
    for length in (unit.LARGEST - frame.TAG, unit.LARGEST - frame.TAG - REPORT.size):
        client.channel.say(frame.Kind.ECHO, bytes(length))
        client.flush()
    assert client.counters == {"drop_nonsense": 1}


def test_a_socket_that_nobody_answers_is_silence_not_an_error():
    client = End(Direction.TO_SERVER)
    near, far = sockets()
    far.close()
    client.channel.attach(near)
    for _ in range(3):
        client.send(b"x" * 100)
    assert list(client.channel.receive()) == []
    client.channel.close()


@pytest.mark.parametrize("short", [1, unit.OVERHEAD - 1])
@pytest.mark.parametrize("before", [0, 2])
def test_a_datagram_without_a_whole_header_is_dropped_and_what_came_before_it_is_taken(ends, short, before):
    """Found by fuzzing: the header of an earlier one was read in its place."""
    client, server = ends
    near, step = client.channel._sock, unit.OVERHEAD + server.channel._intake._arrivals.expected
    whole = memoryview(bytearray(1 << 16))
    prefix, length = client.channel._sealer.seal(frame.Kind.PROBE, bytes(3 * step), whole)
    (pieces,) = unit.Cuts(whole, step - unit.OVERHEAD).of(prefix, length, 40)
    datagrams = [b"".join(pieces[start : start + 2]) for start in range(0, len(pieces), 2)]
    near.send(datagrams[0])  # something to read again by mistake
    for sent in (b"".join(datagrams[1 : 1 + before]) + bytes(short), *datagrams[1 + before : -1]):
        near.sendmsg([sent], [(17, 103, step.to_bytes(2, "little"))] if len(sent) > step else [])
    near.send(datagrams[-1])
    assert server.receive(1) == [(frame.Kind.PROBE, bytes(3 * step))]
    assert server.counters["drop_malformed"] == 1


@pytest.mark.parametrize("last", [100, 40])
def test_small_datagrams_that_the_kernel_joined_are_all_taken(last):
    """As a network card's driver joins those that come close together: less in all than one full datagram."""
    client, server = End(Direction.TO_SERVER), End(Direction.TO_CLIENT)
    near, far = sockets()
    client.channel.attach(near)
    server.channel.attach(far)
    sealed: list[bytes] = []
    payloads = [b"a" * 100, b"b" * 100, b"c" * last]
    whole = memoryview(bytearray(2048))
    for payload in payloads:
        prefix, length = client.channel._sealer.seal(frame.Kind.PROBE, payload, whole)
        sealed += [b"".join(pieces) for pieces in unit.Cuts(whole, 1400).of(prefix, length, 1)]
    joined = [(17, 103, len(sealed[0]).to_bytes(2, "little"))]  # UDP_SEGMENT: the loopback hands it on as it is
    near.sendmsg([b"".join(sealed)], joined)
    assert server.receive(3) == [(frame.Kind.PROBE, payload) for payload in payloads]
    assert not server.counters
    client.channel.close()
    server.channel.close()


def test_a_path_that_swallows_full_datagrams_is_given_shorter_ones(ends):
    """Nobody says "fragmentation needed": only the probes tell."""
    client, server = ends
    fits, clock = 1400, 0.0
    wire = client.channel._sock

    class Narrow(deque[list[memoryview]]):
        def extend(self, sends):
            super().extend(each for each in sends if sum(map(len, each[:2])) + 28 <= fits)

    client.channel._unsent = Narrow()
    client.channel._loss.reported(100, 50, 0.0)  # something is being lost
    for _ in range(100):
        clock += 0.25
        client.channel.say(frame.Kind.PROBE, struct.pack("!d", clock))
        client.flush()
        while select.select([server.channel.fd], [], [], 0)[0]:
            for _, plain in server.channel.receive():
                server.channel.say(frame.Kind.ECHO, bytes(plain))
        server.flush()
        while select.select([wire], [], [], 0)[0]:
            for kind, plain in client.channel.receive():
                assert kind == frame.Kind.ECHO
                client.channel._holes.echoed(struct.unpack_from("!d", plain)[0])
    assert client.channel.state["mtu"] == fits
    assert client.counters["path_mtu_lowered"] == 2
    assert server.channel.state["mtu"] == 1500
