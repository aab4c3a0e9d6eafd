import itertools
import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.frame import LocalProtocolError, RemoteProtocolError
from appliance.tunnel.legacy import message
from appliance.tunnel.legacy.message import Answer, Authorize, Command, Decoder, encode, read_answer, read_authorize
from tests.appliance.tunnel import legacy_world as world


def read(data):
    ((command, payload),) = Decoder(message.LONGEST).receive(data)
    return command, payload


def answer(**fields):
    return Command.AUTHORIZE_ANSWER, memoryview(json.dumps(fields).encode())


@given(
    st.lists(st.tuples(st.sampled_from(Command), st.binary(max_size=300)), max_size=8),
    st.lists(st.integers(1, 400), min_size=1, max_size=30),
)
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(messages, cuts):
    stream = b"".join(encode(command, payload) for command, payload in messages)
    decoder, received = Decoder(message.LONGEST), []
    for cut in itertools.cycle(cuts):
        received += [(command, bytes(payload)) for command, payload in decoder.receive(stream[:cut])]
        stream = stream[cut:]
        if not stream:
            break
    assert received == messages


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_garbage_is_refused_or_awaited_never_a_crash_and_nothing_is_hoarded(pieces):
    decoder = Decoder()
    try:
        for piece in pieces:
            for command, payload in decoder.receive(piece):
                assert 0 <= command <= 255
                assert len(payload) < message.BEFORE_AUTH
            assert len(decoder._rest) < 2 + message.BEFORE_AUTH
    except RemoteProtocolError:
        pass


def test_every_message_is_as_the_document_has_it():
    assert message.HEARTBEAT == world.HEARTBEAT
    assert message.HEARTBEAT_ANSWER == world.HEARTBEAT_ANSWER
    assert encode(Command.DATA, b"\x45packet") == b"\x00\x08\x00\x45packet"
    assert Authorize(world.KEY).encode() == world.HELLO
    granted = Answer(message.SUCCESS, IPv4Address("100.64.240.50"), IPv4Address("100.64.240.1"))
    assert granted.encode() == world.WELCOME
    assert Answer(message.WRONG_KEY).encode() == world.WRONG_KEY
    assert Answer(message.NO_ADDRESS).encode() == world.NO_ADDRESS
    assert read_answer(*read(world.WELCOME)) == granted


def test_what_the_file_says_of_names_and_routes_is_handed_on():
    encoded = Answer(message.SUCCESS, None, None, ("8.8.8.8", "8.8.4.4"), "http://x/routes").encode()
    assert b'"nameservers":["8.8.8.8","8.8.4.4"]' in encoded
    assert b'"route_script_url":"http://x/routes"' in encoded


def test_a_message_counts_its_command_so_none_has_length_zero():
    with pytest.raises(RemoteProtocolError, match="length 0"):
        Decoder(message.LONGEST).receive(b"\x00\x00")


def test_the_longest_payload_is_65534_bytes():
    longest = bytes(65534)
    assert read(encode(Command.DATA, longest)) == (Command.DATA, longest)
    with pytest.raises(LocalProtocolError):
        encode(Command.DATA, longest + b"x")


def test_a_stranger_may_not_announce_a_long_message():
    with pytest.raises(RemoteProtocolError):
        Decoder().receive((message.BEFORE_AUTH + 1).to_bytes(2))


def test_fields_that_nobody_knows_are_ignored():
    known = {"version": "9", "os": 3, "key": "k"}
    payload = memoryview(json.dumps(known | {"access_ip": "1.2.3.4", "http_port": 80}).encode())
    assert read_authorize(Command.AUTHORIZE, payload).key == "k"
    found = read_answer(*answer(status=message.SUCCESS, access_ip="100.64.240.9", route_rule=["10.0.0.0/8"]))
    assert found.address == IPv4Address("100.64.240.9")


def test_a_key_is_not_shown():
    assert "hidden" not in repr(Authorize("hidden"))


@pytest.mark.parametrize("address", ["", "100.64.240", "224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", 7, None])
def test_a_success_without_an_address_for_a_host_is_none(address):
    with pytest.raises(RemoteProtocolError):
        read_answer(*answer(status=message.SUCCESS, access_ip=address))


def test_of_a_refusal_only_the_status_is_believed():
    assert read_answer(*answer(status="no", access_ip="100.64.240.9", gateway=5)) == Answer("no")


bodies = st.one_of(
    st.binary(max_size=60),
    st.just(b'{"key":' + b"[" * 2000),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["key", "status", "access_ip", "gateway", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.integers(0, 255), bodies)
def test_what_a_peer_says_is_understood_or_refused(command, body):
    for reader in (read_authorize, read_answer):
        try:
            found = reader(command, memoryview(body))
        except RemoteProtocolError:
            continue
        assert isinstance(found, Authorize | Answer)


def test_half_a_character_in_a_key_is_a_key_like_any_other():
    assert read_authorize(Command.AUTHORIZE, memoryview(b'{"key":"\\ud800"}')).key == "\ud800"
