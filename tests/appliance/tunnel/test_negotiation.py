"""Ends of different age: each uses what both know, and what the other adds disturbs it not.

And the conversation about new keys, between the two real ends, and with ends that break its rules.
"""

import asyncio
import base64
import contextlib
import time
from typing import Any

import pytest

from appliance import linkfile
from appliance.tunnel import tun
from appliance.tunnel.handshake import handshake
from appliance.tunnel.rotation import Limits
from tests.appliance.tunnel import ends as world
from tests.appliance.tunnel.ends import KEY, Ends, FakePlane, Line, gtund_played, random, until
from tests.listening import listening

HELLO = {
    "type": "hello",
    "versions": [1],
    "name": "shenzhen",
    "key": base64.b64encode(KEY).decode(),
    "join": "",
    "connections": 1,
    "mode": "hybrid",
}
WELCOME = {
    "type": "welcome",
    "version": 1,
    "session": "00" * 8,
    "address": "100.64.240.50/24",
    "gateway": "100.64.240.1",
    "mtu": 1500,
}


@pytest.fixture
def ends(tmp_path, monkeypatch):
    world.without_a_kernel(monkeypatch)
    return Ends(tmp_path)


async def talk(port: int, **more: object) -> tuple[Line, dict[str, Any]]:
    line = await Line.to(port)
    line.say(**{**HELLO, "random": random(), **more})
    return line, await line.hear()


# ---- clients of another age, at our server --------------------------------------------------------------------------


def test_a_newer_client_is_let_in_and_what_it_adds_is_not_used(ends):
    async def story():
        async with ends.gtund() as (_, port):
            new = {"versions": [1, 2, 7], "capabilities": ["rekey", "teleport"], "wish": {"for": "more"}}
            line, welcome = await talk(port, **new)
            assert (welcome["type"], welcome["version"]) == ("welcome", 1)
            line.say(type="rekey", epoch=1, random=random(), flavour="new")
            assert (await line.hear())["type"] == "rekeyed"
            line.close()

    asyncio.run(story())


def test_an_older_client_is_let_in_and_hears_nothing_of_what_it_cannot(ends):
    async def story():
        async with ends.gtund() as (server, port):
            line, welcome = await talk(port)
            assert welcome["type"] == "welcome"
            line.say(type="rekey", epoch=1, random=random())
            assert (await line.hear())["type"] == "bye"
            await until(lambda: not server.served)
            line.close()

    asyncio.run(story())


def test_a_client_that_shares_no_version_is_told_so(ends):
    async def story():
        async with ends.gtund() as (_, port):
            line, answer = await talk(port, versions=[2, 3])
            assert (answer["type"], answer["code"]) == ("refused", "version")
            assert "upgrade" in answer["reason"]
            line.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "words",
    [
        [{"type": "rekey", "epoch": 2}],
        [{"type": "rekey", "epoch": 0}],
        [{"type": "rekey", "epoch": 1}, {"type": "rekey", "epoch": 2}],
        [{"type": "rekey", "epoch": 1, "random": "c2hvcnQ="}],
        [{"type": "switch", "epoch": 1}],
        [{"type": "rekeyed", "epoch": 1}],
    ],
    ids=["an epoch ahead", "no new epoch", "two at once", "too little random", "a switch to nothing", "our own word"],
)
def test_a_client_that_breaks_the_rules_about_keys_is_out(ends, words):
    async def story():
        async with ends.gtund() as (server, port):
            line, _ = await talk(port, capabilities=["rekey"])
            await until(lambda: server.served)
            for word in words:
                line.say(**{"random": random(), **word})
            await until(lambda: not server.served)
            line.close()

    asyncio.run(story())


# ---- servers of another age, and our client -------------------------------------------------------------------------


def test_a_newer_server_is_understood(ends):
    async def story():
        async with gtund_played(ends) as (lines, port), ends.gtun(port) as link:
            line = await lines.get()
            hello = await line.hear()
            assert hello["versions"] == [1]
            line.say(**WELCOME, random=random(), capabilities=["rekey", "teleport"], motd="welcome to the future")
            await until(lambda: link.report()["state"] == "up")
            async with asyncio.TaskGroup() as group:
                rekey = group.create_task(link.rekey())
                assert (await line.hear())["type"] == "rekey"
                line.say(type="rekeyed", epoch=1, random=random(), flavour="new")
                assert await line.hear() == {"type": "switch", "epoch": 1}
            assert rekey.result() == {"epoch": 1}
            line.close()

    asyncio.run(story())


def test_an_address_that_would_bring_the_metadata_service_into_the_tunnel_is_not_taken(ends, monkeypatch):
    configured: list[object] = []
    monkeypatch.setattr(tun, "configure", lambda *given: configured.append(given))

    async def story():
        async with gtund_played(ends) as (lines, port), ends.gtun(port) as link:
            line = await lines.get()
            await line.hear()
            line.say(**{**WELCOME, "address": "100.100.100.201/31", "gateway": "100.100.100.200"}, random=random())
            await until(lambda: link.report().get("code") == "address")
            line.close()
        assert not configured

    asyncio.run(story())


def test_a_server_that_makes_keys_anew_unasked_is_left(ends, caplog):
    async def story():
        async with gtund_played(ends) as (lines, port), ends.gtun(port) as link:
            line = await lines.get()
            await line.hear()
            line.say(**WELCOME, random=random(), capabilities=["rekey"])
            await until(lambda: link.report()["state"] == "up")
            line.say(type="rekeyed", epoch=1, random=random())
            await until(lambda: "nobody asked for it (protocol)" in caplog.text)
            line.close()

    asyncio.run(story())


def test_an_older_server_is_never_asked_for_new_keys(ends, monkeypatch):
    monkeypatch.setattr(Limits, "reached", lambda *_: True)
    monkeypatch.setattr("appliance.tunnel.rotation._LOOK_EVERY", 0.01)

    async def story():
        async with gtund_played(ends) as (lines, port), ends.gtun(port) as link:
            line = await lines.get()
            await line.hear()
            line.say(**WELCOME, random=random())
            await until(lambda: link.report()["state"] == "up")
            assert "too old" in (await link.rekey())["error"]
            await asyncio.sleep(0.1)  # ten looks at the clock, each of which would ask
            line.say(type="bye", code="stopping", reason="enough")
            assert await line.hear() == {}
            line.close()

    asyncio.run(story())


def test_a_server_that_does_not_answer_for_the_keys_is_left(ends, monkeypatch):
    monkeypatch.setattr("appliance.tunnel.rotation._ANSWER", 0.1)

    async def story():
        async with gtund_played(ends) as (lines, port), ends.gtun(port) as link:
            line = await lines.get()
            await line.hear()
            line.say(**WELCOME, random=random(), capabilities=["rekey"])
            await until(lambda: link.report()["state"] == "up")
            assert "ended meanwhile" in (await link.rekey())["error"]
            again = await lines.get()
            assert again is not line, "it comes again"
            for each in (line, again):
                each.close()

    asyncio.run(story())


# ---- both ends of ours ----------------------------------------------------------------------------------------------


def test_both_ends_come_to_the_same_keys_each_time(ends):
    """That neither seals before the other can open is checked by the data planes of `ends`, at every step."""

    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port) as link:
            await until(lambda: link.report()["state"] == "up")
            for epoch in range(1, 30):
                assert await link.rekey() == {"epoch": epoch}
            await until(lambda: all(plane.epoch == 29 for plane in FakePlane.all))
            near, far = FakePlane.all
            assert near.opens == far.opens
            assert len({session.secret for session in near.opens}) == 30
            served = server.served["shenzhen"]
            assert served.next is None

    asyncio.run(story())


def test_two_who_ask_at_once_get_one_new_epoch_or_two_but_none_is_forgotten(ends):
    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port) as link:
            await until(lambda: link.report()["state"] == "up")
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                asked = [group.create_task(link.rekey()) for _ in range(5)]
            assert {str(task.result()["epoch"]) for task in asked} <= {"1", "2"}

    asyncio.run(story())


@pytest.mark.parametrize("limits", [{"rekey_seconds": 1}, {"rekey_records": 1000}])
def test_keys_are_made_anew_when_they_are_old_or_much_used(ends, limits, monkeypatch):
    monkeypatch.setattr("appliance.tunnel.rotation._LOOK_EVERY", 0.01)

    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port, **limits) as link:
            await until(lambda: link.report()["state"] == "up")
            near = next(plane for plane in FakePlane.all if plane.device == "tun-hk")
            near.traffic.channels = {"epoch": 0, "key_used": 1000}
            await until(lambda: near.epoch == 1)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol", "does not speak"), (b"", "unreachable", "hung up")],
)
def test_a_server_that_is_no_gtund_is_told_from_one_that_hangs_up(ends, says, code, told):
    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            await reader.read(1)
            writer.write(says)

    async def story():
        async with listening(answer) as (_, port), ends.gtun(port) as link:
            await until(lambda: link.report()["code"] == code)
            assert told in link.report()["reason"]

    asyncio.run(story())


def test_without_a_session_there_are_no_keys_to_make_anew(ends):
    async def story():
        async with gtund_played(ends) as (_, port), ends.gtun(port) as link:
            assert "no session" in (await link.rekey())["error"]

    asyncio.run(story())


def file_of(link, key, join):
    """Return what a link's file says with these credentials."""
    secret = {name: base64.b64encode(value).decode() for name, value in (("key", key), ("join", join))}
    named = {name: getattr(link, name) for name in ("name", "device", "server", "pin", "client")}
    return linkfile.text("link", {**named, **secret}).encode()


def test_a_key_that_the_server_took_without_our_hearing_of_it_is_the_key(ends, monkeypatch):
    """The old one is dead by then: to go back to it would lock the link out."""

    async def no_answer(*arguments):
        await handshake(*arguments)
        raise ConnectionResetError

    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port) as link:
            await until(lambda: link.report()["state"] == "up")
            _, secret = ends.registry.rotate("shenzhen", time.time())
            with monkeypatch.context() as patch:
                patch.setattr("appliance.tunnel.gtun.handshake", no_answer)
                assert await link.reload(file_of(link._link, b"n" * 32, secret)) == {"reloaded": "hk"}
            assert ends.registry.admit("shenzhen", b"n" * 32, b"", time.time())
            assert ends.registry.admit("shenzhen", KEY, b"", time.time()) is None
            await until(lambda: link.report()["state"] == "up")

    asyncio.run(story())


@pytest.mark.parametrize("text", [b"\xff", b"[link", b"[link]\nname = 'hk'\n"])
def test_a_file_that_is_no_links_changes_nothing(ends, text):
    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port) as link:
            await until(lambda: link.report()["state"] == "up")
            before = link._link
            assert (await link.reload(text))["error"]
            assert (link._link, link.report()["state"]) == (before, "up")

    asyncio.run(story())


def test_credentials_that_the_server_refuses_cost_nothing_and_those_that_it_takes_are_used(ends):
    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port) as link:
            await until(lambda: link.report()["state"] == "up")
            present = link._link
            first = server.served["shenzhen"]
            _, secret = ends.registry.rotate("shenzhen", time.time())
            for join, said in ((b"wrong", {"code": "denied"}), (secret, {"reloaded": "hk"})):
                assert said.items() <= (await link.reload(file_of(present, b"n" * 32, join))).items()
                assert ("code" in said) == (server.served.get("shenzhen") is first)
            await until(lambda: link.report()["state"] == "up" and "shenzhen" in server.served)
            assert ends.registry.admit("shenzhen", KEY, b"", time.time()) is None

    asyncio.run(story())
