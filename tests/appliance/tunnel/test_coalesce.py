import dataclasses
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import segment, virtio
from appliance.tunnel.coalesce import Merged, Packet, coalesce

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7))
A, B = b"\x0a\0\0\1", b"\x0a\0\0\2"


@dataclass(frozen=True)
class Small:
    """What makes a packet; `kept`: its checksum is left to the kernel."""

    payload: bytes
    sequence: int = 0
    identification: int = 0
    version: int = 4
    protocol: int = TCP
    flags: int = ACK
    tos: int = 0
    ttl: int = 64
    fragment: int = 0x4000
    port: int = 7
    window: int = 100
    acknowledged: int = 9
    urgent: int = 0
    options: bytes = b""
    finished: bool = True
    target: bytes = B

    def packet(self) -> Packet:
        data = finish(self.headers() + self.payload) if self.finished else partial(self.headers() + self.payload)
        return (0 if self.finished else virtio.UNSUMMED), 0, memoryview(data)

    def headers(self) -> bytes:
        if self.protocol == TCP:
            offset = (20 + len(self.options)) // 4 << 4
            numbers = (5, self.port, self.sequence & 0xFFFFFFFF, self.acknowledged, offset, self.flags, self.window)
            transport = struct.pack("!HHIIBBHHH", *numbers, 0, self.urgent) + self.options
        else:
            transport = struct.pack("!HHHH", 5, self.port, 8 + len(self.payload), 0)
        length = len(transport) + len(self.payload)
        if self.version == 6:
            first = 6 << 28 | self.tos << 20
            return (
                struct.pack("!IHBB16s16s", first, length, self.protocol, self.ttl, A * 4, self.target * 4) + transport
            )
        identification = self.identification & 0xFFFF
        fields = (0x45, self.tos, 20 + length, identification, self.fragment, self.ttl, self.protocol, 0)
        head = bytearray(struct.pack("!BBHHHBBH4s4s", *fields, A, self.target))
        head[10:12] = (0xFFFF - total(head)).to_bytes(2)
        return bytes(head) + transport


def total(data: bytes | bytearray) -> int:
    value = int(sum(struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + bytes(len(data) & 1))))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def layout(packet: bytes) -> tuple[int, int, bytes]:
    """Return where the transport begins, where its checksum is, and the pseudo header."""
    start = 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9] if start == 20 else packet[6]
    addresses = packet[12:20] if start == 20 else packet[8:40]
    length = len(packet) - start
    return start, start + (16 if protocol == TCP else 6), addresses + struct.pack("!II", length, protocol)


def finish(packet: bytes) -> bytes:
    """Return the packet with its transport checksum, as a kernel or its device completes it."""
    start, at, pseudo = layout(packet)
    empty = packet[:at] + bytes(2) + packet[at + 2 :]
    value = 0xFFFF - total(pseudo + empty[start:])
    if packet[9 if start == 20 else 6] == UDP:
        value = value or 0xFFFF
    return packet[:at] + value.to_bytes(2) + packet[at + 2 :]


def partial(packet: bytes) -> bytes:
    _, at, pseudo = layout(packet)
    return packet[:at] + total(pseudo).to_bytes(2) + packet[at + 2 :]


def apart(merged: Merged) -> list[bytes]:
    """Return the packets that the kernel makes of it."""
    shape, size, pieces = merged
    whole = b"".join(pieces)
    if not shape & virtio.SEGMENTED:
        return [finish(whole) if shape & virtio.UNSUMMED else whole]
    return [finish(bytes(piece)) for _, _, piece in segment.split(shape, size, memoryview(whole))]


def finished(packets: list[Packet]) -> list[bytes]:
    return [finish(bytes(packet)) if shape else bytes(packet) for shape, _, packet in packets]


def flow(small: Small, payloads: list[bytes]) -> list[Small]:
    """Return packets that follow each other as a sender's do."""
    out, sequence = [], small.sequence
    for number, payload in enumerate(payloads):
        identification = small.identification + number
        out.append(dataclasses.replace(small, payload=payload, sequence=sequence, identification=identification))
        sequence += len(payload)
    return out


smalls = st.builds(
    Small,
    payload=st.just(b""),
    sequence=st.sampled_from([0, 0xFFFFFF00]),
    identification=st.sampled_from([0, 0xFFFE]),
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    flags=st.sampled_from([ACK, ACK | PSH]),
    tos=st.integers(0, 255),
    fragment=st.sampled_from([0, 0x4000]),
    options=st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8)]),
    finished=st.booleans(),
)
oddities = st.dictionaries(
    st.integers(0, 11),
    st.sampled_from(
        [
            {"flags": ACK | PSH},
            {"flags": ACK | FIN | PSH},
            {"flags": ACK | ECE},
            {"flags": ACK | CWR},
            {"flags": SYN},
            {"tos": 1},
            {"ttl": 63},
            {"fragment": 0x2000},
            {"port": 8},
            {"window": 99},
            {"acknowledged": 10},
            {"options": b"\1\1\1\1"},
            {"finished": False},
            {"sequence": 77},
            {"identification": 9},
        ]
    ),
    max_size=3,
)


@given(smalls, st.integers(1, 12), st.sampled_from([1, 7, 60, 999, 1400]), st.binary(min_size=1, max_size=60), oddities)
def test_what_was_merged_comes_apart_as_it_came(small, count, size, last, oddities):
    packets = flow(small, [bytes([number]) * size for number in range(count)] + [last])
    for number, change in oddities.items():
        if number < len(packets):
            packets[number] = dataclasses.replace(packets[number], **change)
    came = [one.packet() for one in packets]
    assert [piece for merged in coalesce(came) for piece in apart(merged)] == finished(came)


@given(st.lists(st.tuples(st.sampled_from([0, virtio.UNSUMMED]), st.binary(max_size=80)), max_size=4))
def test_garbage_goes_through_as_it_is(packets):
    came = [(shape, 0, memoryview(packet)) for shape, packet in packets]
    assert [b"".join(pieces) for _, _, pieces in coalesce(came)] == [packet for _, packet in packets]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("complete", [True, False])
def test_neighbours_of_one_flow_become_one(version, protocol, complete):
    small = Small(b"", version=version, protocol=protocol, finished=complete)
    came = [one.packet() for one in flow(small, [b"x" * 1000] * 40 + [b"y" * 10])]
    (merged,) = coalesce(came)
    assert merged[:2] == (virtio.UNSUMMED | (virtio.TCP if protocol == TCP else virtio.UDP), 1000)
    assert apart(merged) == finished(came)


@pytest.mark.parametrize(
    "change",
    [
        {"tos": 1},
        {"tos": 0x20},
        {"ttl": 63},
        {"fragment": 0},
        {"port": 8},
        {"window": 99},
        {"acknowledged": 10},
        {"options": b"\1\1\1\1"},
        {"flags": ACK | ECE},
        {"flags": ACK | CWR},
        {"flags": ACK | URG},
        {"flags": ACK | RST},
        {"urgent": 1},
        {"finished": False},
        {"sequence": 101},
        {"identification": 2},
        {"payload": b"x" * 101},
    ],
    ids=str,
)
def test_packets_that_differ_stay_apart(change):
    first, second = flow(Small(b""), [b"x" * 100] * 2)
    came = [first.packet(), dataclasses.replace(second, **change).packet()]
    assert len(list(coalesce(came))) == 2


def test_nothing_follows_a_push_or_a_shorter_packet():
    for last in ({"flags": ACK | PSH}, {"payload": b"x" * 9}):
        packets = flow(Small(b""), [b"x" * 10] * 4)
        packets[1] = dataclasses.replace(packets[1], **last)
        packets[2:] = flow(
            dataclasses.replace(packets[2], sequence=packets[1].sequence + len(packets[1].payload)), [b"x" * 10] * 2
        )
        assert [len(pieces) for _, _, pieces in coalesce([one.packet() for one in packets])] == [3, 3]


def test_damage_does_not_become_valid():
    came = [one.packet() for one in flow(Small(b""), [b"x" * 100] * 3)]
    broken = bytearray(came[1][2])
    broken[60] ^= 4
    came[1] = (0, 0, memoryview(broken))
    assert [bytes(pieces[0]) for _, _, pieces in coalesce(came)] == [bytes(packet) for _, _, packet in came]


def test_a_super_packet_is_no_longer_than_ip_allows():
    came = [one.packet() for one in flow(Small(b""), [b"x" * 1400] * 100)]
    lengths = [sum(map(len, pieces)) for _, _, pieces in coalesce(came)]
    assert max(lengths) <= 65_535
    assert len(lengths) == 3
