"""What is to be removed is asked about first; and who may speak with nexthop-forward, and how."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

import pytest

from appliance.forwardtalk import Hello, Removing, State, Wake, decode, encode
from appliance.intent import StoreUnavailable
from appliance.model import Intent
from tests.appliance.border import BOTH, border, withdrawn
from tests.appliance.fakes import POD, SERVICE, until


def test_what_is_about_to_be_removed_is_carried_no_more_before_it_is_allowed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            withdrawn(it.store, POD)
            assert await it.server.removing(frozenset({SERVICE}), frozenset({POD})) == frozenset()
            assert it.client.carrying == {SERVICE}

    asyncio.run(scenario())


def test_what_is_asked_for_again_meanwhile_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            withdrawn(it.store, POD)
            withdrawn(it.store, SERVICE)
            it.store.put(Intent(POD, "hk"))  # and nexthop-forward has not looked since
            assert await it.server.removing(frozenset(), BOTH) == frozenset({POD})
            it.store.leave(POD)
            assert await it.server.removing(frozenset(), BOTH) == frozenset({POD})

    asyncio.run(scenario())


def test_with_the_disk_away_everything_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[Intent, ...]:
        raise StoreUnavailable("gone")

    async def scenario() -> None:
        async with border(tmp_path) as it:
            monkeypatch.setattr(it.store, "all", broken)
            assert await it.server.removing(frozenset(), BOTH) == BOTH

    asyncio.run(scenario())


def test_without_an_answer_nothing_may_be_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False, patience=0.01) as it:
            assert await it.server.removing(frozenset(), BOTH) is None  # nobody is there
            it.run("server")
            await until(it.path.exists)
            reader, writer = await asyncio.open_unix_connection(it.path)
            writer.write(encode(Hello()))
            await until(it.server.listens)
            assert await it.server.removing(frozenset(), BOTH) is None  # it is there, and silent
            heard = [decode(await reader.readline()) for _ in range(3)]
            assert [type(each) for each in heard] == [Hello, State, Removing]
            writer.close()
            await until(lambda: not it.server.listens())

    asyncio.run(scenario())


def test_an_end_of_the_conversation_is_no_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.run("server")
            await until(it.path.exists)
            _, writer = await asyncio.open_unix_connection(it.path)
            writer.write(encode(Hello()))
            await until(it.server.listens)
            asked = asyncio.get_running_loop().create_task(it.server.removing(frozenset(), BOTH))
            await asyncio.sleep(0)
            writer.close()
            assert await asked is None

    asyncio.run(scenario())


def test_a_newer_nexthopd_takes_the_place_of_one_that_was_not_noticed_to_be_dead(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            await it.end("client")
            await until(lambda: not it.server.listens())
            dead, written = await asyncio.open_unix_connection(it.path)
            written.write(encode(Hello()))
            await until(it.server.listens)
            it.run("client")
            await until(it.client.ready)
            with contextlib.suppress(ConnectionError):
                while await dead.readline():
                    pass
            written.close()
            assert await it.server.removing(frozenset(), BOTH) == frozenset()

    asyncio.run(scenario())


@pytest.mark.parametrize("said", [encode(Hello(99)), b"GET / HTTP/1.1\r\n\r\n", encode(Hello()) + encode(State())])
def test_who_speaks_otherwise_is_hung_up_on(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.run("server")
            await until(it.path.exists)
            reader, writer = await asyncio.open_unix_connection(it.path)
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                while await reader.readline():
                    pass
            writer.close()
            await until(lambda: not it.server.listens())

    asyncio.run(scenario())


@pytest.mark.parametrize("said", [b"", encode(Hello())[:5], encode(Hello()), encode(Hello()) + encode(Wake())[:5]])
def test_an_end_at_any_point_is_a_death_and_no_mistake(
    tmp_path: Path, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.run("server")
            await until(it.path.exists)
            reader, writer = await asyncio.open_unix_connection(it.path)
            writer.write(said)
            writer.write_eof()
            assert decode(await reader.readline()) == Hello()
            await reader.read()
            writer.close()
            await until(lambda: not it.server.listens())

    asyncio.run(scenario())
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_stranger_may_not_speak_even_if_the_socket_let_him_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.run("server")
            await until(it.path.exists)
            assert stat.S_IMODE(it.path.stat().st_mode) == 0o660
            it.path.chmod(0o666)
            assert await said_by(65534, it.path) == b""
            assert await said_by(0, it.path) == encode(Hello())
            os.chown(tmp_path, 65534, -1)
            it.server.trust_owner_of(tmp_path)
            assert await said_by(65534, it.path) == encode(Hello())

    for each in (tmp_path, *tmp_path.parents[:3]):
        each.chmod(0o755)
    asyncio.run(scenario())


async def said_by(user: int, path: Path) -> bytes:
    """Return what nexthop-forward answers to this user's Hello."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(sys.argv[2].encode()); print(s.makefile().readline(), end='')"
    )
    whom = ("setpriv", f"--reuid={user}", "--clear-groups") if user else ()
    process = await asyncio.create_subprocess_exec(
        *(*whom, "/usr/bin/python3", "-c", program, str(path), encode(Hello()).decode()), stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0]
