from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance.virtualloop import Stuck, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    with contextlib.closing(VirtualLoop()) as made:
        yield made


def test_time_passes_only_where_there_is_nothing_else_to_do(loop: VirtualLoop) -> None:
    async def scenario() -> list[float]:
        seen = []
        for seconds in (3600.0, 0.0, 0.25):
            await asyncio.sleep(seconds)
            seen.append(loop.time())
        assert await asyncio.to_thread(lambda: 7) == 7
        return seen

    assert loop.run_until_complete(scenario()) == [3600.0, 3600.0, 3600.25]


def test_so_many_turns_and_no_more(loop: VirtualLoop) -> None:
    counted: list[int] = []

    async def count() -> None:
        while True:
            counted.append(1)
            await asyncio.sleep(0)

    task = loop.create_task(count())
    loop.turns(5)
    assert len(counted) == 5
    loop.turns(0)
    assert len(counted) == 5
    task.cancel()
    loop.turns(3)


def test_waiting_for_nothing_at_all_is_told(loop: VirtualLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.turns(2)


def test_a_line_hands_over_all_in_order_and_late_and_then_the_end(loop: VirtualLoop, tmp_path: Path) -> None:
    heard: list[tuple[float, bytes]] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append((loop.time(), line))
        writer.close()

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "a"))
            server = await asyncio.start_unix_server(converse, sock=listener)
            (tmp_path / "a").rename(tmp_path / "b")
            with pytest.raises(FileNotFoundError):
                await asyncio.open_unix_connection(tmp_path / "a")
            reader, writer = await asyncio.open_unix_connection(tmp_path / "b")
            for latency in (2.0, 0.0):
                loop.there = latency
                writer.write(f"{latency}\n".encode())
            writer.close()
            assert await reader.read() == b""
            await asyncio.sleep(3)
            server.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_unix_connection(tmp_path / "b")

    loop.run_until_complete(scenario())
    assert [line for _, line in heard] == [b"2.0\n", b"0.0\n"]
    assert loop.ends == 0


def test_the_same_program_does_the_same_each_time() -> None:
    def run() -> list[tuple[int, float]]:
        seen: list[tuple[int, float]] = []
        chance = random.Random(7)

        async def walker(name: int) -> None:
            for _ in range(20):
                await asyncio.sleep(chance.choice((0, 0.001, 0.5)))
                seen.append((name, asyncio.get_running_loop().time()))

        async def scenario() -> None:
            async with asyncio.TaskGroup() as group:
                for name in range(5):
                    group.create_task(walker(name))

        with contextlib.closing(VirtualLoop()) as own:
            own.run_until_complete(scenario())
        return seen

    assert run() == run()
