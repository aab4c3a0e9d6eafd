"""nexthop-forward and nexthopd speak with each other over a real socket; what is said on one side is played here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.forwardtalk import Hello, Removing, State, Wake, decode, encode
from appliance.intent import IntentStore, StoreUnavailable
from appliance.kernel.state import Device
from appliance.links import Links
from appliance.meddling import OFTEN
from appliance.model import Bar, Intent, Network, Phase
from appliance.status import FirewallStatus, Layer, LayerState, Repeated
from tests.appliance.fakes import POD, SERVICE, until

BOTH = frozenset({POD, SERVICE})
OK = Layer(LayerState.OK, "routed to tun-hk")


@dataclass
class Speaker:
    """Plays `Forward`."""

    now: State = field(default_factory=lambda: State(ready=True, carrying=BOTH, layers={POD: OK}))
    woken: int = 0

    def state(self) -> State:
        return self.now

    def wake(self) -> None:
        self.woken += 1

    async def rules(self) -> Mapping[str, str]:
        return {"nftables": "table inet nexthop"}


@dataclass
class Border:
    server: ForwardServer
    client: ForwardClient
    speaker: Speaker
    store: IntentStore
    path: Path
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def end(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks.pop(name), return_exceptions=True)

    def run(self, name: str) -> None:
        work = self.server.run(self.speaker) if name == "server" else self.client.run()
        self.tasks[name] = asyncio.get_running_loop().create_task(work)


@contextlib.asynccontextmanager
async def border(place: Path, *, started: bool = True, patience: float = 5.0) -> AsyncIterator[Border]:
    store = IntentStore(place / "nexthop.db")

    async def devices() -> Mapping[str, Device]:
        return {}

    path = place / "forward" / "forward.sock"
    client = ForwardClient(path, store, Links(place, place), devices, retry=0.002)
    made = Border(ForwardServer(path, patience=patience), client, Speaker(), store, path)
    if started:
        made.run("server")
        made.run("client")
        await until(client.ready)
    try:
        yield made
    finally:
        for name in tuple(made.tasks):
            await made.end(name)
        store.close()


def test_everything_is_told_at_the_start_and_whenever_it_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            assert it.client.carrying == BOTH
            assert (it.client.layer(POD), it.client.layer(SERVICE).code) == (OK, "pending")
            assert it.client.problem() is None
            told: list[None] = []
            it.client.on_carrying(lambda: told.append(None))
            it.speaker.now = State(True, "locked", frozenset({POD}), {}, FirewallStatus("nft", "why"), {"route": 2})
            it.server.publish()
            await until(lambda: it.client.problem() == "locked")
            assert (it.client.carrying, it.client.firewall()) == (frozenset({POD}), FirewallStatus("nft", "why"))
            it.client.repaired("device", "tun-hk", 3)
            assert it.client.repairs() == {"route": 2, "device": 3}
            assert told == [None]

    asyncio.run(scenario())


def test_a_change_of_intents_wakes_the_other_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            woken = it.speaker.woken
            it.store.put(Intent(POD, "hk"))
            await until(lambda: it.speaker.woken > woken)

    asyncio.run(scenario())


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


def test_nothing_counts_as_carried_while_nobody_answers_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            await it.end("server")
            await until(lambda: not it.client.carrying)
            assert not it.client.ready()
            assert "nobody watches it" in str(it.client.problem())
            assert it.client.layer(POD) == OK  # in the kernel it is, as far as anybody knows
            it.server = ForwardServer(it.path)
            it.run("server")
            await until(lambda: it.client.carrying == BOTH)
            assert it.client.problem() is None

    asyncio.run(scenario())


def test_a_record_is_dropped_only_while_it_is_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            withdrawn(it.store, POD)
            it.store.put(Intent(SERVICE, "hk"))
            it.server.gone(BOTH)
            await until(lambda: it.store.get(POD) is None)
            found = it.store.get(SERVICE)
            assert found is not None
            assert found.phase is Phase.PRESENT

    asyncio.run(scenario())


def test_a_repair_is_written_down_also_one_from_a_time_without_nexthopd(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.server.repaired("route", "10.244.0.0/16")
            it.run("server")
            it.run("client")
            await until(it.client.ready)
            it.server.repaired("firewall", "rules were gone")
            await until(lambda: len(it.store.history()) == 2)
            told = [(event.who, event.what, event.detail) for event in it.store.history()]
            assert told == [
                ("forward", "repaired firewall", "rules were gone"),
                ("forward", "repaired route", "10.244.0.0/16"),
            ]

    asyncio.run(scenario())


def test_the_rules_are_shown_by_who_may_see_them_to_everybody_who_asks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            for _ in range(2):
                both = await asyncio.gather(it.client.rules(), it.client.rules())
                assert [each["nftables"] for each in both] == ["table inet nexthop"] * 2
            await it.end("server")
            await until(lambda: not it.client.ready())
            assert "does not answer" in (await it.client.rules())["firewall"]

    asyncio.run(scenario())


def test_what_is_repaired_again_and_again_is_told_as_somebodys_doing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            for _ in range(OFTEN):
                assert it.client.meddling() == ()
                it.server.repaired("sysctl", "net/ipv4/ip_forward")
            await until(it.client.meddling)
            assert it.client.meddling() == (Repeated("sysctl", "net/ipv4/ip_forward", OFTEN),)

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


def test_another_release_of_nexthop_forward_is_told_as_such(tmp_path: Path) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Hello(99)))
        writer.close()

    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.path.parent.mkdir()
            async with await asyncio.start_unix_server(answer, it.path):
                it.run("client")
                await until(lambda: "restart both" in str(it.client.problem()))
                assert not it.client.carrying

    asyncio.run(scenario())


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


def withdrawn(store: IntentStore, network: Network) -> None:
    store.put(Intent(network, "hk"))
    store.leave(network)
    store.withdrawn(network)


def test_a_word_that_is_for_the_other_side_alone_ends_the_conversation(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(encode(Hello()) + encode(Wake()))
        await reader.read()
        writer.close()

    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.path.parent.mkdir()
            async with await asyncio.start_unix_server(answer, it.path):
                it.run("client")
                await until(lambda: "nobody understands" in str(it.client.problem()))

    asyncio.run(scenario())


def test_what_is_barred_may_go_from_the_kernel_and_is_shown_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            it.store.put(Intent(POD, "hk"))
            it.store.put(Intent(SERVICE, "hk"))
            assert await it.server.removing(frozenset(), BOTH) == BOTH
            woken = it.speaker.woken
            it.store.bar({POD: Bar("overlaps-vswitch", "a vSwitch is there")})
            await until(lambda: it.speaker.woken > woken)
            assert await it.server.removing(frozenset(), BOTH) == frozenset({SERVICE})
            assert it.client.layer(POD) == Layer(LayerState.ERROR, "a vSwitch is there", "overlaps-vswitch")
            it.store.bar({})
            assert it.client.layer(POD) == OK

    asyncio.run(scenario())
