from __future__ import annotations

import contextlib
from ipaddress import ip_network
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.forwardtalk import (
    BadMessage,
    Gone,
    Hello,
    Message,
    Passed,
    Removing,
    Repaired,
    Show,
    Shown,
    State,
    Stays,
    Wake,
    decode,
    encode,
)
from appliance.status import FirewallStatus, Layer, LayerState

networks = st.one_of(
    st.integers(0, 2**16 - 1).map(lambda number: ip_network((number << 16, 16))),
    st.integers(0, 2**16 - 1).map(lambda number: ip_network(((0xFD << 120) + (number << 64), 64))),
)
some = st.frozensets(networks, max_size=5)
numbers = st.integers(0, 2**40)
layers = st.builds(Layer, st.sampled_from(LayerState), st.text(), st.text())
counts = st.dictionaries(st.text(max_size=8), st.integers(0, 10**6), max_size=4)
states = st.builds(
    State,
    st.booleans(),
    st.none() | st.text(),
    some,
    st.dictionaries(networks, layers, max_size=5),
    st.builds(FirewallStatus, st.text(), st.text()),
    counts,
)
messages = st.one_of(
    st.builds(Hello, numbers),
    st.just(Wake()),
    states,
    st.builds(Removing, numbers, some, some),
    st.builds(Stays, numbers, some),
    st.builds(Gone, st.dictionaries(networks, numbers, max_size=5)),
    st.builds(Repaired, st.text(), st.text(), numbers),
    st.builds(Passed, st.floats(0, 1000)),
    st.just(Show()),
    st.builds(Shown, st.dictionaries(st.text(max_size=8), st.text(), max_size=4)),
)


@given(messages)
def test_what_is_said_is_what_is_heard_on_one_line(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_this_file_knows_every_message() -> None:
    assert set(get_args(Message)) == {Hello, Wake, State, Removing, Stays, Gone, Repaired, Passed, Show, Shown}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"is": "sing"}\n',
        b'{"is": ["wake"]}\n',
        b'{"is": "gone"}\n',
        b'{"is": "gone", "revisions": {"10.0.0.1/8": 1}}\n',
        b'{"is": "gone", "revisions": {"10.0.0.0/8": null}}\n',
        b'{"is": "gone", "revisions": ["10.0.0.0/8"]}\n',
        b'{"is": "stays", "number": "x", "networks": []}\n',
        b'{"is": "state", "problem": null, "carrying": [], "layers": {"10.0.0.0/8": ["fine", "", ""]}}\n',
        b"[" * 100_000,
    ],
)
def test_what_nobody_says_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(line)


@given(st.binary(max_size=60))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    with contextlib.suppress(BadMessage):
        decode(line)
