from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import frame
from appliance.tunnel.messages import Goodbye, Hello, Refusal, Welcome
from appliance.tunnel.session import TRANSITIONS, Conversation, Role, State

HELLO = Hello((1,), "shenzhen", b"k" * 32, b"j" * 32, b"r" * 32, 4)
WELCOME = Welcome(1, b"sessions", b"R" * 32, IPv4Interface("100.64.240.50/24"), IPv4Address("100.64.240.1"), 1500)


class Pair:
    """A client and a server joined by a line that nothing happens on."""

    def __init__(self) -> None:
        self.client, self.server = Conversation(Role.CLIENT), Conversation(Role.SERVER)

    def to_server(self):
        return self.server.receive(self.client.to_send())

    def to_client(self):
        return self.client.receive(self.server.to_send())

    def opened(self) -> "Pair":
        self.client.hello(HELLO)
        self.to_server()
        self.server.welcome(WELCOME)
        self.to_client()
        return self


def test_a_client_asks_and_is_let_in():
    pair = Pair()
    pair.client.hello(HELLO)
    assert pair.to_server() == [HELLO]
    pair.server.welcome(WELCOME)
    assert pair.to_client() == [WELCOME]
    assert (pair.client.state, pair.server.state) == (State.OPEN, State.OPEN)


def test_a_client_is_refused_with_a_code_and_a_reason():
    pair = Pair()
    pair.client.hello(HELLO)
    pair.to_server()
    pair.server.refuse(Refusal.DENIED, "no such client")
    assert pair.to_client() == [Goodbye("denied", "no such client")]
    assert (pair.client.state, pair.server.state) == (State.CLOSED, State.CLOSED)


def test_either_end_can_say_goodbye():
    for first, second in (("client", "server"), ("server", "client")):
        pair = Pair().opened()
        getattr(pair, first).goodbye(Refusal.STOPPING, "that is all")
        assert getattr(pair, f"to_{second}")() == [Goodbye("stopping", "that is all")]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", ["hello", "welcome", "refused", "bye", "unheard-of"])
def test_what_the_table_does_not_allow_or_what_has_no_content_is_the_peers_error(role, kind):
    conversation = Conversation(role)
    before = conversation.state
    with pytest.raises(frame.RemoteProtocolError) as caught:
        conversation.receive(frame.encode({"type": kind}))
    assert ("malformed" in str(caught.value)) is ((role, before, kind) in TRANSITIONS)
    assert conversation.state is before


def test_saying_what_is_not_ours_to_say_is_our_error():
    with pytest.raises(frame.LocalProtocolError):
        Conversation(Role.SERVER).hello(HELLO)
    with pytest.raises(frame.LocalProtocolError):
        Conversation(Role.SERVER).welcome(WELCOME)


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["hello", "welcome", "refused", "bye"])},
        optional={
            name: st.none() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
            for name in (
                "versions",
                "name",
                "key",
                "join",
                "random",
                "session",
                "version",
                "address",
                "gateway",
                "mtu",
                "code",
            )
        },
    ),
    st.sampled_from(Role),
)
def test_no_message_however_malformed_makes_it_fail_otherwise(message, role):
    conversation = Conversation(role)
    try:
        conversation.receive(frame.encode(message))
    except frame.RemoteProtocolError:
        assert conversation.state in (State.AWAIT_HELLO, State.HELLO_SENT)
