"""Conversations of the document, as a client has them: the server's side is written out byte for byte."""

import asyncio
import contextlib

import pytest

from appliance.tunnel import tun
from appliance.tunnel.legacy import WARNING
from appliance.tunnel.legacy.client import Client
from appliance.tunnel.legacy.config import ClientConfig
from appliance.tunnel.legacy.message import Command, encode
from tests.appliance.tunnel import legacy_world as world
from tests.appliance.tunnel.legacy_world import FakeDevice, data, packet, until
from tests.listening import listening

FROM_POD = packet("10.244.1.20", "100.64.240.50", b"hello")
TO_POD = packet("100.64.240.50", "10.244.1.20", b"hi")


class Visit:
    """One connection that the client made."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self, expected: bytes) -> None:
        heard = await asyncio.wait_for(self.reader.readexactly(len(expected)), world.LIMIT)
        assert heard == expected

    def say(self, *messages: bytes) -> None:
        self.writer.write(b"".join(messages))

    async def let_in(self, welcome: bytes = world.WELCOME) -> None:
        await self.hear(world.HELLO)
        self.say(welcome)
        await self.hear(world.HEARTBEAT)
        self.say(world.HEARTBEAT_ANSWER)

    async def left(self) -> None:
        """Wait until the client hung up."""
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(self.reader.read(65536), world.LIMIT):
                pass

    def close(self) -> None:
        self.writer.transport.abort()


class Scene:
    """A running client, its TUN, and the server that the test plays."""

    client: Client

    def __init__(self) -> None:
        self.visits: asyncio.Queue[Visit] = asyncio.Queue()
        self.device = FakeDevice()

    async def visit(self) -> Visit:
        return await asyncio.wait_for(self.visits.get(), world.LIMIT)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls):
        scene = cls()

        async def arrive(reader, writer):
            scene.visits.put_nowait(Visit(reader, writer))

        async def device(_name):
            return scene.device

        with contextlib.closing(scene.device):
            async with listening(arrive) as (host, port), asyncio.TaskGroup() as group:
                scene.client = Client(ClientConfig("old", f"{host}:{port}", world.KEY), device)
                task = group.create_task(scene.client.run(None))
                yield scene
                task.cancel()

    def report(self, key):
        return self.client.report()[key]


def test_it_authorizes_takes_its_address_and_is_up_with_the_first_heartbeat_answered():
    async def scene():
        async with Scene.open() as scene:
            visit = await scene.visit()
            await visit.hear(world.HELLO)
            visit.say(world.WELCOME)
            await visit.hear(world.HEARTBEAT)
            assert scene.report("state") == "connecting"
            visit.say(world.HEARTBEAT_ANSWER)
            await until(lambda: scene.report("state") == "up")
            assert scene.device.up
            assert scene.device.addresses == ["100.64.240.50/24"]
            assert (scene.report("address"), scene.report("peer")) == ("100.64.240.50/24", "100.64.240.1")
            assert isinstance(scene.report("rtt_ms"), float)

    asyncio.run(scene())


def test_its_status_says_at_all_times_that_nothing_is_encrypted():
    async def scene():
        async with Scene.open() as scene:
            assert (scene.report("encrypted"), scene.report("warning")) == (False, WARNING)
            await (await scene.visit()).let_in()
            await until(lambda: scene.report("state") == "up")
            assert (scene.report("encrypted"), scene.report("reason")) == (False, WARNING)

    asyncio.run(scene())


def test_packets_go_both_ways_as_they_are():
    async def scene():
        async with Scene.open() as scene:
            visit = await scene.visit()
            await visit.let_in()
            visit.say(data(FROM_POD))
            assert await scene.device.delivered() == FROM_POD
            scene.device.kernel.send(TO_POD)
            await visit.hear(data(TO_POD))
            await until(lambda: scene.report("counters")["tx_packets"] == 1)
            assert scene.report("counters")["rx_bytes"] == len(FROM_POD)

    asyncio.run(scene())


def test_unknown_commands_are_skipped_and_what_is_no_packet_is_dropped():
    async def scene():
        async with Scene.open() as scene:
            visit = await scene.visit()
            await visit.let_in()
            unknown = [b"\x00\x01\x63", b"\x00\x05\x01abcd", b"\x00\x01\x02", world.WELCOME]
            unknown += [world.HEARTBEAT, world.HELLO]  # a client's own words
            large, six, short = packet("10.244.1.20", "100.64.240.50", bytes(1481)), b"\x60" + bytes(60), b"\x45"
            visit.say(*unknown, data(large), data(six), data(short), data(b""), data(FROM_POD))
            assert await scene.device.delivered() == FROM_POD
            counters = scene.report("counters")
            assert (counters["skipped_commands"], counters["drop_shape"], counters["rx_packets"]) == (6, 4, 1)

    asyncio.run(scene())


def test_a_packet_of_1500_bytes_passes():
    async def scene():
        async with Scene.open() as scene:
            visit = await scene.visit()
            await visit.let_in()
            largest = packet("10.244.1.20", "100.64.240.50", bytes(1480))
            visit.say(data(largest))
            assert await scene.device.delivered() == largest
            scene.device.kernel.send(largest)
            await visit.hear(data(largest))

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (world.WRONG_KEY, "denied", "refuses the key"),
        (world.NO_ADDRESS, "no-address", "no free address"),
        (encode(Command.AUTHORIZE_ANSWER, b'{"status":"x"}y'), "protocol", "not JSON"),
        (encode(Command.AUTHORIZE_ANSWER, b'{"status":"go away\\u001b[2J"}'), "denied", r"'go away\x1b[2J'"),
        (b"\x00\x02\x06{", "protocol", "not JSON"),
        (b"\x00\x01\x04", "protocol", "command 4 where 6 is due"),
        (b"\x00\x00", "protocol", "length 0"),
        (b"\xff\xff\x06", "protocol", "length 65535"),
        (b"", "gone", "closed"),
    ],
)
def test_any_answer_but_success_is_shown_and_tried_again(answer, code, says):
    async def scene():
        async with Scene.open() as scene:
            for _ in range(3):
                visit = await scene.visit()
                await visit.hear(world.HELLO)
                visit.say(answer)
                if not answer:
                    visit.writer.write_eof()
                await visit.left()
                assert not scene.device.up
                assert not scene.device.addresses
            await until(lambda: scene.report("code") == code)
            assert scene.report("state") == "down"
            assert says in scene.report("reason")

    asyncio.run(scene())


def test_it_comes_back_with_the_address_that_it_is_given_then():
    async def scene():
        async with Scene.open() as scene:
            first = await scene.visit()
            await first.let_in()
            await until(lambda: scene.device.up)
            first.close()
            second = await scene.visit()
            assert not scene.device.up
            await second.let_in(world.WELCOME.replace(b".50", b".77"))
            await until(lambda: scene.report("address") == "100.64.240.77/24" and scene.device.up)
            assert scene.device.addresses == ["100.64.240.50/24", "100.64.240.77/24"]
            second.say(data(FROM_POD))
            assert await scene.device.delivered() == FROM_POD

    asyncio.run(scene())


def test_reconnecting_leaks_no_reader_and_no_descriptor():
    async def scene():
        async with Scene.open() as scene:
            counts = []
            for _ in range(20):
                visit = await scene.visit()
                await visit.let_in()
                await until(lambda: scene.device.up)
                counts.append(world.descriptors())
                visit.close()
                await until(lambda: not scene.device.up)
            assert counts[5] == counts[-1]

    asyncio.run(scene())


def test_an_address_out_of_this_machines_own_network_is_not_taken():
    async def scene():
        async with Scene.open() as scene:
            scene.device.used = "172.18.2.10/24 on eth0"
            visit = await scene.visit()
            await visit.hear(world.HELLO)
            visit.say(world.WELCOME)
            await visit.left()
            await until(lambda: scene.report("code") == "address")
            assert "172.18.2.10/24 on eth0" in scene.report("reason")
            assert not scene.device.addresses

    asyncio.run(scene())


def test_a_device_that_is_gone_ends_the_client():
    def gone(*, up):
        raise tun.DeviceRefused("tun-test is gone")

    async def scene():
        async with Scene.open() as scene:
            await (await scene.visit()).let_in()
            await until(lambda: scene.device.up)
            scene.device.carry = gone
            scene.device.kernel.close()
            await asyncio.sleep(world.LIMIT)  # cancelled as soon as the client ends

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(scene())
    assert caught.group_contains(tun.DeviceRefused)
