from appliance.tunnel import frame
from appliance.tunnel.buffers import Batch, Pool


def batch_of(*packets: bytes) -> Batch:
    batch = Batch()
    for packet in packets:
        batch.room[: len(packet)] = packet
        batch.put(0, 0, len(packet), 0.0)
    return batch


def read(batch: Batch) -> list[bytes]:
    return [bytes(data) for _, _, data in frame.packets(batch.memory[: batch.length])]


def test_a_batch_that_comes_back_is_used_again_and_empty():
    pool = Pool(keep=1)
    batch = batch_of(b"abc")
    pool.give(batch)
    again = pool.take()
    assert again is batch
    assert (again.length, again.packets) == (0, 0)


def test_a_batch_can_lose_its_first_packet():
    batch = batch_of(b"first" * 9, b"second", b"third")
    batch.drop_first()
    assert read(batch) == [b"second", b"third"]
    assert batch.packets == 2


def test_a_copy_carries_its_ticket_before_the_packet():
    batch = Batch()
    batch.copy((7, 9), 0x81, 1448, memoryview(b"packet"), 1.5)
    ((shape, segment, data),) = frame.packets(batch.memory[: batch.length])
    assert (shape, segment) == (0x81 | frame.COPY, 1448)
    assert frame.TICKET.unpack_from(data) == (7, 9)
    assert bytes(data[frame.TICKET.size :]) == b"packet"
