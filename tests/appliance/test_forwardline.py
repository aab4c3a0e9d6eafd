from __future__ import annotations

import asyncio
from typing import cast

import pytest

from appliance.forwardline import Line
from appliance.forwardtalk import BadMessage, Hello, Message, Wake, encode


class Writer:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def line(heard: bytes) -> tuple[Line, Writer]:
    """Return one end, which has been told this and then nothing more."""
    reader, writer = asyncio.StreamReader(limit=100), Writer()
    reader.feed_data(heard)
    reader.feed_eof()
    return Line(reader, cast("asyncio.StreamWriter", writer)), writer


async def greeted(heard: bytes) -> tuple[bool, bytes]:
    made, writer = line(heard)
    return await made.greet(), writer.said


async def all_of(heard: bytes) -> list[Message]:
    made, _ = line(heard)
    found = []
    while (message := await made.hear()) is not None:
        found.append(message)
    return found


def test_both_say_hello_and_an_end_instead_is_no_mistake() -> None:
    hello = encode(Hello())
    assert asyncio.run(greeted(hello)) == (True, hello)
    for cut in (b"", hello[:-1]):
        assert asyncio.run(greeted(cut)) == (False, hello)


def test_another_release_and_another_language_are_mistakes() -> None:
    for said, why in (
        (encode(Hello(99)), "restart both"),
        (encode(Wake()), "restart both"),
        (b"GET / HTTP\r\n", "GET"),
    ):
        with pytest.raises(BadMessage, match=why):
            asyncio.run(greeted(said))


def test_messages_come_one_by_one_and_half_of_one_is_the_end() -> None:
    wake = encode(Wake())
    assert asyncio.run(all_of(wake * 3)) == [Wake()] * 3
    assert asyncio.run(all_of(wake + wake[:-1])) == [Wake()]


def test_a_message_that_never_ends_is_a_mistake() -> None:
    with pytest.raises(BadMessage, match="without an end"):
        asyncio.run(all_of(b"x" * 101 + b"\n"))


def test_nothing_is_said_after_the_end() -> None:
    async def scenario() -> bytes:
        made, writer = line(b"")
        made.close()
        made.say(Wake())
        return writer.said

    assert asyncio.run(scenario()) == b""
