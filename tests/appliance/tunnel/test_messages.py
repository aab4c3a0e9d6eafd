"""What one end writes, the other reads as the same; and what cannot be is the peer's error."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame, keys
from appliance.tunnel.messages import (
    CAPABILITIES,
    MOST_CONNECTIONS,
    Goodbye,
    Hello,
    Mode,
    Refusal,
    Rekey,
    Rekeyed,
    Switch,
    Welcome,
    choose_version,
    farewell,
    read,
    write,
)

RANDOM = st.binary(min_size=keys.RANDOM, max_size=keys.RANDOM)
ABLE = st.frozensets(st.sampled_from(sorted(CAPABILITIES, key=lambda each: each.value)))
EPOCH = st.integers(1, keys.LAST_EPOCH)
HELLO = st.builds(
    Hello,
    versions=st.lists(st.integers(0, 9)).map(tuple),
    name=st.text(max_size=40),
    key=st.binary(max_size=64),
    join=st.binary(max_size=64),
    random=RANDOM,
    connections=st.integers(1, MOST_CONNECTIONS),
    mode=st.sampled_from(Mode),
    capabilities=ABLE,
)
INTERFACE = st.builds(
    lambda address, length: IPv4Interface((address, length)), st.ip_addresses(v=4), st.integers(0, 32)
)
INTERFACE6 = st.builds(
    lambda address, length: IPv6Interface((address, length)), st.ip_addresses(v=6), st.integers(0, 128)
)
WELCOME = st.builds(
    Welcome,
    version=st.integers(0, 9),
    session_id=st.binary(min_size=keys.SESSION_ID, max_size=keys.SESSION_ID),
    random=RANDOM,
    address=INTERFACE,
    gateway=st.ip_addresses(v=4),
    mtu=st.integers(576, 65535),
    address6=st.none() | INTERFACE6,
    capabilities=ABLE,
)
EVENTS = (
    HELLO | WELCOME | st.builds(Rekey, EPOCH, RANDOM) | st.builds(Rekeyed, EPOCH, RANDOM) | st.builds(Switch, EPOCH)
)


def over_the_wire(message: frame.Message) -> frame.Message:
    """Return a message as the peer's decoder gives it."""
    (came,) = frame.Decoder(frame.AFTER_AUTH).receive(frame.encode(message))
    return came


@given(EVENTS)
def test_what_is_written_is_read_as_the_same(event):
    assert read(over_the_wire(write(event))) == event


@pytest.mark.parametrize("kind", ["refused", "bye"])
def test_a_farewell_carries_its_code_and_reason(kind):
    assert read(over_the_wire(farewell(kind, Refusal.REMOVED, "taken out"))) == Goodbye("removed", "taken out")


@given(EVENTS, st.data())
def test_a_message_that_lacks_something_is_the_peers_error(event, data):
    message = write(event)
    optional = {"type", "capabilities", "address6"}
    del message[data.draw(st.sampled_from(sorted(message.keys() - optional)))]
    with pytest.raises(frame.RemoteProtocolError, match="malformed"):
        read(message)


@given(EVENTS, st.dictionaries(st.text(min_size=1).filter(str.isupper), st.integers() | st.text()))
def test_what_a_newer_end_says_beyond_is_overlooked(event, more):
    assert read(json.loads(json.dumps(write(event) | more))) == event


def test_the_greatest_common_version_is_chosen():
    assert choose_version((1, 2, 3)) == 1
    assert choose_version((2, 3)) is None
    assert choose_version(()) is None


def test_secrets_are_not_shown():
    secret = (b"k" * 32, b"j" * 32, b"r" * 32)
    text = repr(Hello((1,), "shenzhen", *secret)) + repr(Rekey(1, secret[2])) + repr(Rekeyed(1, secret[2]))
    welcome = Welcome(1, b"sessions", secret[2], IPv4Interface("100.64.240.50/24"), IPv4Address("100.64.240.1"), 1500)
    text += repr(welcome)
    assert not any(f"{letter}{letter}{letter}" in text for letter in "kjr")
