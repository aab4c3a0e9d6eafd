"""Conversations of the document, as a server has them: the client's side is written out byte for byte."""

import asyncio
import contextlib
import json
import time
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from appliance.tunnel import tun
from appliance.tunnel.gate import PLACES_PER_SOURCE
from appliance.tunnel.legacy import message
from appliance.tunnel.legacy.config import ServerConfig
from appliance.tunnel.legacy.pool import Pool
from appliance.tunnel.legacy.server import SILENCE, Server, listen
from tests.appliance.tunnel import legacy_world as world
from tests.appliance.tunnel.legacy_world import FakeDevice, data, packet, until

SETTINGS = ServerConfig("127.0.0.1", 0, IPv4Interface("100.64.240.50/24"), IPv4Address("100.64.240.1"), "gtun-cs-token")


class Caller:
    """One connection to the server."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *messages: bytes) -> None:
        self.writer.write(b"".join(messages))

    async def hear(self, expected: bytes) -> None:
        heard = await asyncio.wait_for(self.reader.readexactly(len(expected)), world.LIMIT)
        assert heard == expected

    async def hung_up_on(self) -> None:
        """See that the server closed without another word."""
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self.reader.read(), world.LIMIT) == b""

    async def enter(self, address: str = "100.64.240.50") -> None:
        self.say(world.HELLO)
        welcome = world.WELCOME.replace(b"100.64.240.50", address.encode())
        await self.hear((len(welcome) - 2).to_bytes(2) + welcome[2:])


class Scene:
    """A running server with its TUN."""

    device: FakeDevice
    server: Server
    callers: list[Caller]
    address: tuple[str, int]

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings=SETTINGS):
        scene = cls()
        scene.device = FakeDevice("gtund-legacy")
        scene.server = Server(settings, scene.device, Pool(settings.cidr, settings.gateway, lambda free: free[0]))
        scene.callers = []
        listener = listen("127.0.0.1", 0)
        scene.address = listener.getsockname()
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(scene.server.run(listener))
                yield scene
                task.cancel()
        finally:
            listener.close()
            for caller in scene.callers:
                caller.writer.transport.abort()
            scene.device.close()

    async def call(self) -> Caller:
        self.callers.append(Caller(*await asyncio.open_connection(*self.address)))
        return self.callers[-1]

    def report(self, key: str) -> Any:
        return self.server.report()[key]

    def clients(self) -> dict[str, Any]:
        return dict(self.report("clients"))

    def count(self, name):
        return self.report("counters")[name]


def test_a_client_is_let_in_and_its_heartbeats_are_answered():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            caller.say(world.HELLO)
            await caller.hear(world.WELCOME)
            for _ in range(3):
                caller.say(world.HEARTBEAT)
                await caller.hear(world.HEARTBEAT_ANSWER)
            assert list(scene.clients()) == ["100.64.240.50"]
            assert scene.report("encrypted") is False

    asyncio.run(scene())


def test_a_client_that_does_not_wait_for_the_answer_loses_nothing():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            sent = packet("100.64.240.50", "10.244.1.20")
            caller.say(world.HELLO, world.HEARTBEAT, data(sent))
            await caller.hear(world.WELCOME + world.HEARTBEAT_ANSWER)
            assert await scene.device.delivered() == sent

    asyncio.run(scene())


def test_version_system_and_unknown_fields_are_ignored():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            body = json.dumps({"os": "plan9", "key": "gtun-cs-token", "access_ip": "100.64.240.99"}).encode()
            caller.say(message.encode(message.Command.AUTHORIZE, body))
            await caller.hear(world.WELCOME)

    asyncio.run(scene())


@pytest.mark.parametrize("key", ["", "gtun-cs-toke", "gtun-cs-tokeN", "\ud800", "x" * 4000])
def test_a_wrong_key_is_told_so_and_closed(key):
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            caller.say(message.Authorize(key).encode())
            await caller.hear(world.WRONG_KEY)
            await caller.hung_up_on()
            assert scene.count("refused_key") == 1
            assert not scene.clients()

    asyncio.run(scene())


def test_who_finds_no_free_address_is_told_so_and_closed():
    async def scene():
        small = ServerConfig("", 0, IPv4Interface("100.64.240.50/24"), IPv4Address("100.64.240.1"), world.KEY)
        async with Scene.open(small) as scene:
            scene.server._pool._free[:] = [IPv4Address("100.64.240.50")]
            first, second, third = [await scene.call() for _ in range(3)]
            await first.enter()
            second.say(world.HELLO)
            await second.hear(world.NO_ADDRESS)
            await second.hung_up_on()
            first.writer.close()
            await until(lambda: not scene.clients())
            await third.enter()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",
        b"\xff\xff\x05",
        (message.BEFORE_AUTH + 1).to_bytes(2),
        world.HEARTBEAT,
        data(packet("100.64.240.50", "10.244.1.20")),
        b"\x00\x02\x05{",
        b"\x00\x03\x05[]",
        b'\x00\x0a\x05{"key":5}',
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_stranger_that_does_not_authorize_is_hung_up_on(garbage):
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            caller.say(garbage)
            await caller.hung_up_on()
            await (await scene.call()).enter()
            assert scene.device.nothing_delivered()

    asyncio.run(scene())


def test_unknown_commands_are_skipped():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            await caller.enter()
            caller.say(b"\x00\x01\x63", b"\x00\x05\x01abcd", b"\x00\x01\x02", world.HELLO)
            caller.say(world.HEARTBEAT_ANSWER, world.WELCOME)  # a server's own words
            caller.say(world.HEARTBEAT)
            await caller.hear(world.HEARTBEAT_ANSWER)
            assert scene.clients()["100.64.240.50"]["counters"]["skipped_commands"] == 6

    asyncio.run(scene())


@pytest.mark.parametrize("garbage", [b"\x00\x00", b"\x00\x01\x03\x00\x00"])
def test_a_client_that_sends_a_message_of_length_zero_is_cut(garbage):
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            await caller.enter()
            caller.say(garbage)
            await until(lambda: not scene.clients())

    asyncio.run(scene())


def test_a_source_that_is_not_the_clients_own_is_dropped_and_counted():
    async def scene():
        async with Scene.open() as scene:
            caller, other = await scene.call(), await scene.call()
            await caller.enter()
            await other.enter("100.64.240.51")
            sent = packet("100.64.240.50", "10.244.1.20", b"true")
            caller.say(data(packet("100.64.240.51", "10.244.1.20")), data(packet("8.8.8.8", "10.244.1.20")), data(sent))
            assert await scene.device.delivered() == sent
            assert scene.device.nothing_delivered()
            assert scene.clients()["100.64.240.50"]["counters"]["drop_source"] == 2

    asyncio.run(scene())


def test_what_is_no_packet_of_at_most_1500_bytes_is_dropped_and_counted():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            await caller.enter()
            large, largest = (packet("100.64.240.50", "10.244.1.20", bytes(size)) for size in (1481, 1480))
            caller.say(data(large), data(b"\x60" + bytes(60)), data(b""), data(bytes(65534)), data(largest))
            assert await scene.device.delivered() == largest
            assert scene.clients()["100.64.240.50"]["counters"]["drop_shape"] == 4

    asyncio.run(scene())


def test_a_packet_goes_to_the_client_that_has_its_destination_exactly():
    async def scene():
        async with Scene.open() as scene:
            first, second = await scene.call(), await scene.call()
            await first.enter()
            await second.enter("100.64.240.51")
            to_first, to_second = (packet("10.244.1.20", f"100.64.240.{last}") for last in (50, 51))
            for content in (packet("10.244.1.20", "100.64.240.99"), b"\x60" + bytes(50), to_second, to_first):
                scene.device.kernel.send(content)
            await first.hear(data(to_first))
            await second.hear(data(to_second))
            assert (scene.count("drop_no_client"), scene.count("drop_shape")) == (1, 1)

    asyncio.run(scene())


def test_a_client_that_does_not_read_loses_its_own_packets_and_delays_nobody():
    async def scene():
        async with Scene.open() as scene:
            slow, quick = await scene.call(), await scene.call()
            await slow.enter()
            await quick.enter("100.64.240.51")
            slow.writer.transport.pause_reading()
            filler, probe = packet("10.244.1.20", "100.64.240.50", bytes(1400)), packet("10.244.1.20", "100.64.240.51")

            def drops():
                return scene.clients()["100.64.240.50"]["counters"]["drop_queue"]

            async with asyncio.timeout(world.LIMIT * 3):
                while drops() < 100:
                    with contextlib.suppress(BlockingIOError):
                        scene.device.kernel.send(filler)
                    await asyncio.sleep(0)
            scene.device.kernel.send(probe)
            await quick.hear(data(probe))
            line = scene.server._guests[IPv4Address("100.64.240.50").packed].line
            assert len(line._outbox) <= line._outbox.MOST

    asyncio.run(scene())


def test_a_client_that_falls_silent_is_gone_and_its_address_free():
    async def scene():
        async with Scene.open() as scene:
            silent, lively = await scene.call(), await scene.call()
            await silent.enter()
            await lively.enter("100.64.240.51")
            now = time.monotonic()
            scene.server._guests[IPv4Address("100.64.240.51").packed].line.heard = now + SILENCE
            scene.server.end_silent(now + SILENCE + 1)
            await silent.hung_up_on()
            await until(lambda: list(scene.clients()) == ["100.64.240.51"])
            await (await scene.call()).enter()

    asyncio.run(scene())


def test_half_a_message_is_silence():
    async def scene():
        async with Scene.open() as scene:
            caller = await scene.call()
            await caller.enter()
            line = scene.server._guests[IPv4Address("100.64.240.50").packed].line
            before = line.heard
            caller.say(b"\x00\x05\x00abc")
            await until(lambda: line._decoder._rest)
            assert line.heard == before

    asyncio.run(scene())


def test_strangers_of_one_source_get_only_their_share_of_the_places():
    async def scene():
        async with Scene.open() as scene:
            idle = [await scene.call() for _ in range(PLACES_PER_SOURCE)]
            late = await scene.call()
            await late.hung_up_on()
            assert scene.report("turned_away") == 1
            idle[0].writer.close()
            await idle[1].enter()

    asyncio.run(scene())


def test_who_was_let_in_is_no_stranger():
    async def scene():
        async with Scene.open() as scene:
            for number in range(2 * PLACES_PER_SOURCE):
                await (await scene.call()).enter(f"100.64.240.{50 + number}")
            assert len(scene.clients()) == 2 * PLACES_PER_SOURCE
            assert scene.report("turned_away") == 0

    asyncio.run(scene())


def test_the_key_is_not_in_the_report():
    async def scene():
        async with Scene.open() as scene:
            await (await scene.call()).enter()
            assert world.KEY not in json.dumps(scene.server.report())

    asyncio.run(scene())


def test_a_device_that_is_gone_ends_the_server():
    async def scene():
        async with Scene.open() as scene:
            await (await scene.call()).enter()
            scene.device.kernel.close()
            await asyncio.sleep(world.LIMIT)  # cancelled as soon as the server ends

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(scene())
    assert caught.group_contains(tun.DeviceRefused)
