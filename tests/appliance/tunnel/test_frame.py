import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=4), max_size=5),
    st.data(),
)
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(contents, data):
    messages = [{**content, "type": "x"} for content in contents]
    stream = b"".join(frame.encode(message) for message in messages)
    decoder, received = frame.Decoder(frame.AFTER_AUTH), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        received += decoder.receive(stream[:cut])
        stream = stream[cut:]
    assert received == messages


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_awaited_never_a_crash(data):
    decoder = frame.Decoder()
    try:
        for message in decoder.receive(data):
            assert isinstance(message["type"], str)
    except frame.RemoteProtocolError:
        pass


def test_a_stranger_may_not_announce_a_long_message():
    with pytest.raises(frame.RemoteProtocolError):
        frame.Decoder().receive((frame.BEFORE_AUTH + 1).to_bytes(4))


def test_deep_nesting_is_the_peers_error():
    body = b'{"type":' + b"[" * 2000 + b"]" * 2000 + b"}"
    with pytest.raises(frame.RemoteProtocolError):
        frame.Decoder().receive(len(body).to_bytes(4) + body)


@given(st.binary(min_size=frame.RECORD.size, max_size=frame.RECORD.size))
def test_a_header_is_read_or_refused(data):
    try:
        header = frame.read_header(data)
    except frame.RemoteProtocolError:
        return
    assert data[0] == frame.VERSION
    assert frame.TAG <= header.length <= frame.LARGEST_SEALED


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=50)), max_size=8))
def test_a_batch_gives_back_its_packets(packets):
    batch = b"".join(frame.PACKET.pack(shape << 24 | len(data), segment) + data for shape, segment, data in packets)
    assert [(shape, segment, bytes(data)) for shape, segment, data in frame.packets(memoryview(batch))] == packets


@given(st.binary(max_size=100))
def test_a_batch_of_garbage_ends_in_packets_or_a_refusal(data):
    try:
        total = sum(len(packet) + frame.PACKET.size for _, _, packet in frame.packets(memoryview(data)))
    except frame.RemoteProtocolError:
        return
    assert total == len(data)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=3), st.binary(max_size=8))
def test_the_only_packet_of_a_batch_is_what_all_its_packets_are(packets, rest):
    batch = b"".join(frame.PACKET.pack(shape << 24 | len(data), 9) + data for shape, data in packets) + rest
    only = frame.only(memoryview(batch))
    if only is not None:
        assert [only] == list(frame.packets(memoryview(batch)))
    else:
        assert len(packets) != 1 or rest or packets[0][0] & frame.COPY
