"""An open session on the client's side: nothing that it does keeps it from hearing that it is over."""

import asyncio

import pytest

from appliance.tunnel import keys, opened, tun
from appliance.tunnel.dataplane import Lost, Over
from tests.appliance.tunnel import ends as world
from tests.appliance.tunnel.ends import Ends, FakePlane, until


@pytest.fixture
def ends(tmp_path, monkeypatch):
    world.without_a_kernel(monkeypatch)
    return Ends(tmp_path)


def near() -> FakePlane:
    return next(plane for plane in FakePlane.all if plane.device == "tun-hk")


async def up(link) -> FakePlane:
    await until(lambda: link.report()["state"] == "up")
    return near()


def test_the_data_plane_is_heard_while_a_connection_is_opened_to_a_server_that_is_gone(ends, monkeypatch, caplog):
    monkeypatch.setattr(opened, "_PATIENCE", 1000.0)

    async def never(*_):
        await asyncio.get_running_loop().create_future()

    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port) as link:
            plane = await up(link)
            monkeypatch.setattr(opened, "open_data", never)
            session_id = plane.opens[0].session_id
            plane.say(Lost(session_id, 1))
            plane.say(Over(session_id, "nothing comes back"))
            await until(lambda: "is down: nothing comes back (gone)" in caplog.text)  # and is soon up again

    asyncio.run(story())


def test_a_device_that_is_gone_is_made_anew_before_the_server_is_asked_again(ends, monkeypatch, caplog):
    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port) as link:
            plane = await up(link)
            first = server.served["shenzhen"]
            monkeypatch.setattr(tun, "exists", lambda _: False)
            plane.say(Over(plane.opens[0].session_id, "the device broke"))
            await until(lambda: "somebody deleted tun-hk; the device is opened again in 0.0 s" in caplog.text)
            monkeypatch.setattr(tun, "exists", lambda _: True)
            await until(lambda: server.served.get("shenzhen") not in (None, first))
            assert "is down" not in caplog.text

    asyncio.run(story())


def test_a_clients_device_that_somebody_deleted_at_the_far_end_is_made_anew(ends, monkeypatch):
    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port) as link:
            await up(link)
            first = server.served["shenzhen"]
            monkeypatch.setattr(tun, "exists", lambda name: name != "gt-shenzhen")
            first.plane.say(Over(first.session.session_id, "the device broke"))
            await until(lambda: server.served.get("shenzhen") not in (None, first))
            assert server.served["shenzhen"].plane is not first.plane
            assert ("close", None) in first.plane.told

    asyncio.run(story())


def test_a_connection_that_is_lost_is_replaced_under_a_number_that_was_never_used(ends):
    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port, connections=2) as link:
            plane = await up(link)
            for lost in (0, 1, 2):
                plane.say(Lost(plane.opens[0].session_id, lost))
            await until(lambda: len([1 for word, _ in plane.told if word == "connect"]) == 5)
            assert sorted(number for word, number in plane.told if word == "connect") == [0, 1, 2, 3, 4]

    asyncio.run(story())


def test_a_connection_that_cannot_be_opened_is_tried_again_and_the_session_goes_on(ends, monkeypatch, caplog):
    """Somebody in between may allow only so many connections from one address."""
    genuine, refused = opened.open_data, list[int]()

    async def refusing(control, session, number):
        if len(refused) < 3:
            refused.append(number)
            raise ConnectionRefusedError(111, "Connection refused")
        return await genuine(control, session, number)

    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port, connections=2) as link:
            monkeypatch.setattr(opened, "open_data", refusing)
            plane = await up(link)
            session = server.served["shenzhen"]
            await until(lambda: len([1 for word, _ in plane.told if word == "connect"]) == 2)
            assert refused == [1, 3, 5]
            assert [number for word, number in plane.told if word == "connect"] == [0, 7]
            assert server.served["shenzhen"] is session
            assert "data connection 1 cannot be opened: Connection refused" in caplog.text

    asyncio.run(story())


def test_a_session_that_has_no_more_numbers_is_followed_by_another(ends):
    """The number after the last would be the datagram channel's, and its keys the same."""

    async def story():
        async with ends.gtund() as (server, port), ends.gtun(port, connections=1) as link:
            plane = await up(link)
            first = server.served["shenzhen"]
            plane.say(Lost(plane.opens[0].session_id, keys.DATAGRAMS - 1))
            await until(lambda: server.served.get("shenzhen") not in (None, first))

    asyncio.run(story())


@pytest.mark.parametrize("device", ["tun-hk", "gt-shenzhen"])
def test_no_connection_is_opened_before_the_data_planes_work(ends, monkeypatch, device):
    """One that is slow to start would answer no probe, and be taken for dead: on a machine that boots, say."""
    awake = FakePlane.awake

    async def slow(plane):
        if plane.device == device:
            plane.works.clear()
        await awake(plane)

    monkeypatch.setattr(FakePlane, "awake", slow)

    async def story():
        async with ends.gtund() as (_, port), ends.gtun(port) as link:
            await until(lambda: any(not plane.works.is_set() for plane in FakePlane.all))
            assert not [word for plane in FakePlane.all for word, _ in plane.told if word == "connect"]
            (late,) = [plane for plane in FakePlane.all if not plane.works.is_set()]
            late.works.set()
            await up(link)
            assert ("connect", 0) in near().told

    asyncio.run(story())
