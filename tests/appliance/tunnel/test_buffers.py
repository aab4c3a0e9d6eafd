from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame
from appliance.tunnel.buffers import Batch, Pool, Queue


def batch_of(pool: Pool, packet: bytes, now: float) -> Batch:
    batch = pool.take()
    batch.room[: len(packet)] = packet
    batch.put(0, 0, len(packet), now)
    return batch


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=12))
def test_packets_leave_a_queue_whole_and_in_order(packets):
    pool, out = Pool(keep=4), []
    queue = Queue(pool)
    for packet in packets:
        queue.put(batch_of(pool, packet, 0.0), 0.0)
    while len(queue):
        batch = queue.pop()
        out += [bytes(data) for _, _, data in frame.packets(batch.memory[: batch.length])]
        assert batch.length <= frame.BATCH + frame.PACKET.size
        pool.give(batch)
    assert out == packets


def test_small_packets_ride_together():
    pool = Pool(keep=4)
    queue = Queue(pool)
    for _ in range(100):
        queue.put(batch_of(pool, b"x" * 100, 0.0), 0.0)
    assert len(queue) == 1
    assert queue.pop().packets == 100


def test_a_queue_takes_no_more_once_its_oldest_packet_has_waited_too_long():
    pool = Pool(keep=4)
    queue = Queue(pool)
    for _ in range(4):
        assert queue.admit(0.0)
        queue.put(batch_of(pool, b"x" * 60_000, 0.0), 0.0)
    assert queue.admit(Queue.LONGEST / 2)
    assert not queue.admit(Queue.LONGEST)


def test_a_little_is_taken_however_long_it_has_waited():
    pool = Pool(keep=4)
    queue = Queue(pool)
    queue.put(batch_of(pool, b"x" * 1000, 0.0), 0.0)
    assert queue.admit(3600.0)


def test_a_batch_that_comes_back_is_used_again_and_empty():
    pool = Pool(keep=1)
    batch = batch_of(pool, b"abc", 0.0)
    pool.give(batch)
    again = pool.take()
    assert again is batch
    assert (again.length, again.packets) == (0, 0)
