from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.legacy.outbox import Outbox

steps = st.one_of(
    st.tuples(st.just("put"), st.binary(min_size=3, max_size=1503)),
    st.tuples(st.just("say"), st.just(b"\x00\x01\x04")),
    st.tuples(st.just("send"), st.integers(1, 5000)),
)


@given(st.lists(steps, max_size=120))
def test_what_was_taken_goes_out_whole_with_packets_in_order(script):
    outbox, sent, packets, urgent = Outbox(), bytearray(), [], 0
    for number, (what, value) in enumerate(script):
        if what == "put":
            if outbox.put(value, float(number)):
                packets.append(value)
        elif what == "say":
            urgent += outbox.say(value)
        elif chunk := outbox.chunk():
            sent += chunk[:value]
            outbox.sent(len(chunk[:value]))
    while chunk := outbox.chunk():
        sent += chunk
        outbox.sent(len(chunk))
    assert len(outbox) == 0
    assert outbox.since is None
    assert len(sent) == sum(map(len, packets)) + 3 * urgent
    at = 0
    for packet in packets:  # heartbeats may stand between packets, never inside one
        while not sent.startswith(packet, at) and sent.startswith(b"\x00\x01\x04", at):
            at += 3
        assert sent.startswith(packet, at)
        at += len(packet)


@given(st.lists(st.tuples(st.integers(1, 1503), st.floats(0, 0.01)), max_size=2000))
def test_it_never_holds_more_than_its_bound(packets):
    outbox, now = Outbox(), 0.0
    for length, pause in packets:
        now += pause
        outbox.put(bytes(length), now)
        outbox.say(b"\x00\x01\x04")
        assert len(outbox) <= Outbox.MOST + 100


def test_a_packet_that_would_wait_too_long_is_refused_now():
    outbox = Outbox()
    while outbox.put(bytes(1500), 0.0) and len(outbox) < 2 * Outbox.ALWAYS:
        pass
    assert not outbox.put(bytes(1500), Outbox.LONGEST)
    assert outbox.put(bytes(1500), Outbox.LONGEST / 2)


def test_a_little_is_taken_however_long_the_line_stands_still():
    outbox = Outbox()
    outbox.put(b"old", 0.0)
    assert outbox.put(b"new", 1000.0)


def test_a_heartbeat_goes_before_all_packets_but_not_into_one():
    outbox = Outbox()
    for name in (b"aaa", b"bbb"):
        outbox.put(name, 0.0)
    outbox.chunk()
    outbox.sent(1)
    outbox.put(b"ccc", 0.0)
    outbox.say(b"HB")
    rest = bytes(outbox.chunk())
    outbox.sent(len(rest))
    assert rest + bytes(outbox.chunk()) == b"aabbbHBccc"


def test_who_never_reads_does_not_gather_heartbeats():
    outbox = Outbox()
    assert sum(outbox.say(b"HB") for _ in range(10_000)) < 100
