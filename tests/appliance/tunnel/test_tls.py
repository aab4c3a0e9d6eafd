"""Control connections over the loopback: what both ends see of each other, and of an end."""

import asyncio
import contextlib
import os
import socket

import pytest

from appliance.tunnel import identity, tls
from appliance.tunnel.tls import Line

LIMIT = 10.0


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return identity.ensure(tmp_path_factory.mktemp("identity"))


async def accepted(listener, key):
    """Return the line of the next client, after the handshake."""
    listener.setblocking(False)
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    line = Line(sock, identity.server_context(key), server_side=True)
    await line.shake_hands()
    return line


@contextlib.asynccontextmanager
async def both(key):
    """Yield a client's line and the server's, after the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.timeout(LIMIT):
            port = listener.getsockname()[1]
            lines = await asyncio.gather(
                Line.connect("127.0.0.1", port, identity.client_context(), LIMIT), accepted(listener, key)
            )
            try:
                yield lines
            finally:
                for line in lines:
                    line.hang_up()


def test_both_ends_hear_what_the_other_says_and_the_client_sees_whose_key_it_is(key):
    async def story():
        async with both(key) as (client, server):
            identity.check_pin(client.certificate, identity.pin_of_file(key))
            client.write(b"hello")
            client.write(b" there")
            assert await server.read(5) == b"hello"
            assert await server.read(100) == b" there"
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(client.read(100))
                await asyncio.sleep(0)  # it waits
                server.write(b"welcome")
            assert waiting.result() == b"welcome"
            assert server.peer[0] == "127.0.0.1"

    asyncio.run(story())


@pytest.mark.parametrize("end", [Line.close, Line.hang_up])
def test_an_end_is_read_after_what_was_said_before_it(key, end):
    async def story():
        async with both(key) as (client, server):
            server.write(b"goodbye")
            end(server)
            assert await client.read(100) == b"goodbye"
            assert await client.read(100) == b""
            server.write(b"and one more thing")  # says nothing to nobody
            assert await server.read(100) == b""

    asyncio.run(story())


def test_who_waits_to_read_hears_of_an_end_from_this_side(key):
    async def story():
        async with both(key) as (client, _):
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(client.read(100))
                await asyncio.sleep(0)  # it waits
                client.hang_up()
            assert waiting.result() == b""

    asyncio.run(story())


def test_what_the_peer_does_not_take_at_once_comes_later(key):
    async def story():
        async with both(key) as (client, server):
            sent = b""
            while not server._unsent:  # the sockets' buffers are full
                server.write(piece := os.urandom(16 << 10))
                sent += piece
            came = b""
            while len(came) < len(sent):
                came += await client.read(1 << 16)
            assert came == sent

    asyncio.run(story())


def test_a_peer_that_never_reads_is_hung_up_on(key):
    async def story():
        async with both(key) as (_, server):
            while server._fd >= 0:
                server.write(bytes(16 << 10))
                assert len(server._unsent) <= tls._MOST_UNSENT + (16 << 10)
            assert await server.read(100) == b""

    asyncio.run(story())


def test_who_speaks_no_tls_is_an_error_of_the_line(key):
    async def story():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            caller = socket.create_connection(listener.getsockname())
            sock, _ = listener.accept()
            sock.setblocking(False)
            line = Line(sock, identity.server_context(key), server_side=True)
            caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(OSError, match="SSL"):
                await line.shake_hands()
            line.hang_up()
            caller.close()

    asyncio.run(story())


def test_an_address_that_is_silent_leaves_time_for_the_next(key, monkeypatch):
    async def story():
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(3):  # whose SYNs fill its queue: the next ones are dropped
                other = stack.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            found = [(*kind, full.getsockname()), (*kind, listener.getsockname())]

            async def addresses(*_):
                return found

            monkeypatch.setattr(tls, "_addresses", addresses)
            lines = await asyncio.gather(
                Line.connect("gtund.example", 9443, identity.client_context(), 0.5), accepted(listener, key)
            )
            assert lines[0].peer == listener.getsockname()
            for line in lines:
                line.hang_up()
            found.pop()
            with pytest.raises(TimeoutError):
                await Line.connect("gtund.example", 9443, identity.client_context(), 0.2)

    asyncio.run(story())


def test_the_next_address_of_a_name_is_tried_and_the_last_error_told(key, monkeypatch):
    async def story():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as closed:
            here, nowhere = listener.getsockname(), closed.getsockname()
            closed.close()
            kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            found = [(*kind, nowhere), (*kind, here)]

            async def addresses(*_):
                return found

            monkeypatch.setattr(tls, "_addresses", addresses)
            client, server = await asyncio.gather(
                Line.connect("gtund.example", 9443, identity.client_context(), LIMIT), accepted(listener, key)
            )
            assert client.peer == here
            client.hang_up()
            server.hang_up()
            found.pop()
            with pytest.raises(ConnectionRefusedError):
                await Line.connect("gtund.example", 9443, identity.client_context(), LIMIT)

    asyncio.run(story())


def test_a_line_that_loses_a_fifth_each_way_does_not_end_a_control_connection_on_which_nothing_is_said():
    with socket.socket() as sock:
        tls.keep_alive(sock)
        idle, every, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    unanswered = 1 - 0.8**2
    rounds_a_year = 365 * 86400 / idle
    assert unanswered**count * rounds_a_year < 10
    assert idle + every * count < 120, "and yet one that is gone is noticed"
