from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame
from appliance.tunnel.buffers import Batch, Pool
from appliance.tunnel.fairqueue import LANES, FairQueue

TARGET, INTERVAL = 0.1, 0.4
"""What a round trip of 0.05 s makes of them."""


class World:
    def __init__(self, rtt: float = TARGET / 2) -> None:
        self.pool, self.counters = Pool(keep=8), Counter[str]()
        self.queue = FairQueue(self.pool, self.counters)
        self.queue.tune(rtt)

    def put(self, packet: bytes, flow: int, now: float = 0.0) -> None:
        batch = self.pool.take()
        batch.room[: len(packet)] = packet
        batch.put(0, 0, len(packet), now)
        self.queue.put(batch, flow << 8, now)

    def pop(self, now: float = 0.0) -> list[bytes]:
        batch = self.queue.pop(now)
        if batch is None:
            return []
        packets = read(batch)
        self.pool.give(batch)
        return packets


def read(batch: Batch) -> list[bytes]:
    return [bytes(data) for _, _, data in frame.packets(batch.memory[: batch.length])]


def large(first: int, ecn: int = 0) -> bytes:
    """Return an IPv4 packet of 60,000 bytes, as far as a queue looks into it."""
    return bytes((0x45, ecn, 0, first)) + bytes(59_996)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40_000), st.booleans()), max_size=40))
def test_every_packet_leaves_once_and_those_of_a_flow_in_order(steps):
    world = World()
    sent: dict[int, list[bytes]] = {}
    got: dict[int, list[bytes]] = {}
    for number, (flow, size, pop) in enumerate(steps):
        packet = bytes((flow,)) + number.to_bytes(2) + bytes(size)
        sent.setdefault(flow, []).append(packet)
        world.put(packet, flow)
        for one in world.pop() if pop else ():
            got.setdefault(one[0], []).append(one)
    while packets := world.pop():
        assert sum(frame.PACKET.size + len(one) for one in packets) <= frame.BATCH or len(packets) == 1
        for one in packets:
            got.setdefault(one[0], []).append(one)
    assert got == sent
    assert not world.queue.count
    assert not world.counters


def test_small_packets_ride_together_also_those_of_different_flows():
    world = World()
    for number in range(100):
        world.put(b"x" * 100, number % 7)
    assert len(world.pop()) == 100


def test_a_new_flow_does_not_wait_behind_one_that_has_much():
    world = World()
    for number in range(10):
        world.put(large(number), flow=1)
    world.pop()
    world.put(b"new", flow=2)
    assert b"new" in world.pop()


def test_two_flows_with_much_take_turns():
    world = World()
    for _ in range(10):
        for flow in (1, 2):
            world.put(large(flow), flow)
    order = [world.pop()[0][3] for _ in range(20)]
    assert all(abs(order[:count].count(1) - order[:count].count(2)) <= 2 for count in range(20))


def fill(world: World, now: float, ecn: int = 0) -> None:
    for number in range(12):
        world.put(large(number, ecn), 1, now)


def stand(world: World, seconds: float, ecn: int = 0) -> list[bytes]:
    """Run a queue in which every packet waits for 0.25 s, whatever is dropped; return what leaves it."""
    out = []
    for step in range(round(seconds * 20)):
        while world.queue.count < 5:
            world.put(large(step & 0xFF, ecn), 1, step / 20)
        if step >= 5:
            out += world.pop(step / 20)
    return out


def test_a_burst_that_drains_within_the_interval_loses_nothing():
    world = World()
    fill(world, 0.0)
    assert [world.pop(TARGET + number / 100)[0][3] for number in range(12)] == list(range(12))
    assert not world.counters


def test_a_flow_that_waits_too_long_for_an_interval_loses_one_packet():
    world = World()
    stand(world, INTERVAL + 0.25)
    assert not world.counters
    world = World()
    numbers = [packet[3] for packet in stand(world, INTERVAL + 0.35)]
    assert world.counters == {"drop_queue": 1}
    assert numbers == sorted(numbers)


def test_a_flow_that_goes_on_waiting_too_long_loses_more_and_more_often():
    drops = []
    for seconds in (1.5, 3):
        world = World()
        stand(world, seconds)
        drops.append(world.counters["drop_queue"])
    assert 0 < drops[0] < drops[1] - drops[0]


def test_a_flow_that_knows_marks_is_marked_instead():
    world = World()
    out = stand(world, INTERVAL + 0.35, ecn=2)
    assert [packet[1] for packet in out].count(3) == 1
    assert world.counters == {"marked": 1}


def test_of_a_batch_of_small_packets_only_the_first_is_dropped():
    world, sent, got = World(), 0, 0
    for step in range(16):
        while world.queue.count < 5:
            world.put(bytes((0x45, 0, 0, step)) + bytes(4000), 1, step / 20)
            sent += 1
        got += len(world.pop(step / 20)) if step >= 5 else 0
    assert world.counters == {"drop_queue": 1}
    while packets := world.pop(0.8):
        got += len(packets)
    assert got == sent - 1


def test_a_little_is_kept_however_long_it_has_waited():
    world = World()
    world.put(large(0), 1)
    assert world.pop(3600.0)
    assert not world.counters


def test_what_is_far_too_old_is_dropped_whatever_it_is():
    world = World()
    fill(world, 0.0, ecn=2)
    assert world.pop(10.0)[0][3] == 9  # the rest is no more than a stall of the process would leave
    assert world.counters == {"drop_queue": 9}


def test_what_waits_is_bounded_and_the_flow_with_most_pays():
    world = World()
    world.put(b"small", flow=2)
    for number in range(500):
        world.put(large(number & 0xFF), flow=1)
    assert world.queue.count < 100
    assert world.counters["drop_queue"] > 400
    assert b"small" in world.pop() + world.pop()


def test_more_flows_than_lanes_share_them():
    world = World()
    for flow in range(3 * LANES):
        world.put(flow.to_bytes(2), flow)
    assert sorted(world.pop()) == [flow.to_bytes(2) for flow in range(3 * LANES)]
