"""The control socket: the state for whoever asks, or says nothing; a command for whoever gives one."""

import asyncio
import json
import stat
import time

import pytest

from appliance.tunnel import report


@pytest.fixture
def ask(tmp_path):
    """Return what a control socket answers to these bytes, with or without an end."""

    async def turn(what):
        return {"turned": what.decode() or True}

    def asked(said: bytes, *, end: bool) -> dict[str, object]:
        async def story() -> dict[str, object]:
            path = tmp_path / "run" / "x.sock"
            async with report.serve(path, lambda: {"state": "up"}, {"turn": turn}):
                assert stat.S_IMODE(path.stat().st_mode) == 0o660
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(said)
                if end:
                    writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), 10)
                writer.close()
            assert not path.exists()
            return dict(json.loads(answer))

        return asyncio.run(story())

    return asked


@pytest.mark.parametrize(("said", "end"), [(b"", True), (b"", False), (b"\n", False), (b"turn", False)])
def test_who_gives_no_whole_command_is_told_the_state(ask, said, end):
    assert ask(said, end=end) == {"state": "up"}


@pytest.mark.parametrize(("said", "end"), [(b"turn\n", False), (b"turn", True), (b"  turn \r\nand more", True)])
def test_a_command_is_carried_out(ask, said, end):
    assert ask(said, end=end) == {"turned": True}


def test_a_command_takes_as_many_bytes_as_it_names(ask):
    assert ask(b"turn 9\nthe\npage\nand more", end=False) == {"turned": "the\npage\n"}


@pytest.mark.parametrize("said", [b"turn x\n", b"turn -1\n", b"turn 1000000\n", b"turn 9\nfew"])
def test_bytes_that_do_not_come_or_are_too_many_are_refused(ask, said):
    assert "follow" in str(ask(said, end=True)["error"])


@pytest.mark.parametrize("said", [b"burn\n", b"x" * 100_000, b"\xff\n"])
def test_what_is_no_command_is_refused_and_the_known_ones_named(ask, said):
    assert "known: turn" in str(ask(said, end=True)["error"])


def test_a_command_is_not_missed_while_the_program_is_busy(tmp_path):
    """Whatever takes the loop longer than it waits for a command, such as setting up a device."""

    async def turn(_):
        return {"turned": True}

    async def story():
        async with report.serve(tmp_path / "x.sock", dict, {"turn": turn}):
            loop = asyncio.get_running_loop()
            reader, writer = await asyncio.open_unix_connection(tmp_path / "x.sock")
            while not [task for task in asyncio.all_tasks() if "answer" in repr(task.get_coro())]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            writer.write(b"turn")
            writer.write_eof()
            loop.call_soon(time.sleep, 3 * report._MOMENT)
            assert json.loads(await asyncio.wait_for(reader.read(), 10)) == {"turned": True}
            writer.close()

    asyncio.run(story())
