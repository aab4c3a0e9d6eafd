"""Strangers at the door over the loopback: who is hung up on, and when; who is let in."""

import asyncio
import contextlib
import socket

import pytest

from appliance.tunnel import door, frame, identity
from appliance.tunnel.door import Door
from appliance.tunnel.messages import Hello, Mode, Refusal
from appliance.tunnel.session import Conversation, Role
from appliance.tunnel.tls import Line

LIMIT = 10.0
HELLO = Hello((1,), "shenzhen", b"k" * 32, b"", bytes(32), 1, Mode.HYBRID)
PREFACE = frame.PREFACE.pack(frame.PREFACE_MAGIC, bytes(8), 0, bytes(32))


class Room:
    """What is behind the door: it lets in whoever has a name in `known`."""

    def __init__(self):
        self.known = {"shenzhen"}
        self.came: asyncio.Queue[object] = asyncio.Queue()

    def admit(self, conversation, hello, source):
        if hello.name not in self.known:
            conversation.refuse(Refusal.DENIED, "who is that")
            return None
        return hello.name

    async def serve(self, client, hello, conversation, line, source):
        self.came.put_nowait((client, source))
        await line.read(100)

    def take_data(self, preface, sock):
        self.came.put_nowait(preface)
        sock.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return identity.server_context(identity.ensure(tmp_path_factory.mktemp("identity")))


@contextlib.asynccontextmanager
async def opened(tls):
    """Yield the room, the door, and how to get there: a function that returns a connected socket."""
    room = Room()
    made = Door(tls, room)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def caller(says=b""):
            sock = socket.socket()
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, listener.getsockname())
            await loop.sock_sendall(sock, says)
            return sock

        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            with made.open(listener, group):
                yield room, made, caller


async def hung_up_on(sock):
    """Return when the other side has ended the connection."""
    with contextlib.suppress(ConnectionError), sock:
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff\x01", b"\x16\x03\x01\x00\x05\x02", bytes(100)]
)
def test_who_talks_nonsense_is_hung_up_on_at_once(tls, garbage):
    async def story():
        async with opened(tls) as (room, _, caller):
            await hung_up_on(await caller(garbage))
            assert room.came.empty()

    asyncio.run(story())


@pytest.mark.parametrize("half", [b"\x16\x03", b"\x16\x03\x01\x01\x00\x01half a greeting", PREFACE[:1], PREFACE[:-1]])
def test_who_says_half_of_something_is_hung_up_on_after_a_while(tls, half, monkeypatch):
    monkeypatch.setattr(door, "PATIENCE", 0.3)

    async def story():
        async with opened(tls) as (room, _, caller):
            await hung_up_on(await caller(half))
            assert room.came.empty()

    asyncio.run(story())


def test_who_shakes_hands_and_says_no_more_is_hung_up_on_and_keeps_nobody_out(tls, monkeypatch):
    monkeypatch.setattr(door, "PATIENCE", 1)

    async def story():
        async with opened(tls) as (room, _, caller):
            lines = []
            for _ in range(15):
                lines.append(Line(await caller(), identity.client_context(), server_side=False))
                await lines[-1].shake_hands()
            client = Line(await caller(), identity.client_context(), server_side=False)
            await client.shake_hands()
            client.write(said(HELLO))
            assert await room.came.get() == ("shenzhen", "127.0.0.1")
            for line in lines:
                assert await line.read(100) == b""
                line.hang_up()
            client.hang_up()

    asyncio.run(story())


def test_one_source_has_few_places(tls):
    async def story():
        async with opened(tls) as (_, made, caller):
            held = [await caller(b"\x16\x03") for _ in range(16)]
            while not made.turned_away:
                await hung_up_on(await caller(b"\x16\x03"))
            for sock in held:
                sock.close()

    asyncio.run(story())


def test_whom_nobody_knows_is_told_so(tls):
    async def story():
        async with opened(tls) as (room, _, caller):
            room.known.clear()
            client = Line(await caller(), identity.client_context(), server_side=False)
            await client.shake_hands()
            client.write(said(HELLO))
            assert b"who is that" in await client.read(1000)
            assert await client.read(1000) == b""
            client.hang_up()

    asyncio.run(story())


def test_a_data_connection_is_handed_on_with_what_it_says_of_itself(tls):
    async def story():
        async with opened(tls) as (room, _, caller):
            await hung_up_on(await caller(PREFACE))
            assert await room.came.get() == PREFACE

    asyncio.run(story())


def said(hello):
    """Return a client's first word as it is on the wire."""
    conversation = Conversation(Role.CLIENT)
    conversation.hello(hello)
    return conversation.to_send()


def test_whose_task_is_cut_before_it_began_is_hung_up_on(tls):
    async def story():
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as far,
        ):
            far.settimeout(LIMIT)
            far.sendall(PREFACE)
            listener.setblocking(False)
            async with asyncio.TaskGroup() as group:
                others = asyncio.all_tasks()
                Door(tls, Room())._accept(listener, group)
                (receiving,) = asyncio.all_tasks() - others
                receiving.cancel()
            await asyncio.sleep(0)
            with contextlib.suppress(ConnectionError):
                assert far.recv(1) == b""

    asyncio.run(story())
