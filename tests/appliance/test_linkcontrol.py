"""What is made of a gtun's answer, and of everything that is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from appliance import linkcontrol
from tests.listening import listening


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nx") as name:  # a socket's path takes 108 bytes
        yield Path(name) / "hk.sock"


@contextlib.asynccontextmanager
async def answering(path: Path, answer: bytes | None) -> AsyncIterator[None]:
    """A control socket that says this, or, with None, nothing and never ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is not None:
            await reader.read()
            writer.write(answer)
            writer.close()

    async with listening(serve, path):
        yield


def test_status_is_what_gtun_says(path: Path) -> None:
    said = {
        "name": "hk",
        "device": "tun-hk",
        "pid": 7,
        "state": "down",
        "code": "denied",
        "reason": "the server does not know this key",
        "server": "203.0.113.10:9443",
        "address": None,
        "peer": None,
        "since": 1.5,
        "retry_at": 3,
        "rtt_ms": None,
        "counters": {"sent": 1, "odd": "x"},
    }

    async def scenario() -> None:
        async with answering(path, json.dumps(said).encode()):
            found = await linkcontrol.status("hk", "tun-hk", path)
            assert (found.state, found.code, found.reason) == ("down", "denied", "the server does not know this key")
            assert (found.pid, found.since, found.retry_at, found.rtt_ms) == (7, 1.5, 3.0, None)
            assert (found.address, found.peer, found.counters) == ("", "", {"sent": 1})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"state": "sideways"}',
        b'{"state": ["up"]}',
        b"\xff\xfe",
        b"[" * 70_000,
        b"x" * 500_000,
    ],
)
def test_garbage_is_a_gtun_that_does_not_run(path: Path, answer: bytes) -> None:
    async def scenario() -> None:
        async with answering(path, answer):
            found = await linkcontrol.status("hk", "tun-hk", path)
            assert (found.state, found.code) == ("down", "not-running")

    asyncio.run(scenario())


def test_silence_is_a_gtun_that_does_not_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linkcontrol, "_ANSWER_SECONDS", 0.02)

    async def scenario() -> None:
        async with answering(path, None):
            found = await linkcontrol.status("hk", "tun-hk", path)
            assert (found.code, "does not answer" in found.reason) == ("not-running", True)

    asyncio.run(scenario())


def test_a_gtun_that_does_not_take_its_file_says_why(path: Path) -> None:
    async def scenario() -> None:
        assert await linkcontrol.reload(path, "[link]") == ""  # none runs: the next one reads the file
        async with answering(path, b'{"error": "the server does not know this token"}'):
            assert await linkcontrol.reload(path, "[link]") == "the server does not know this token"
        async with answering(path, b"{}"):
            assert await linkcontrol.reload(path, "[link]") == ""

    asyncio.run(scenario())
