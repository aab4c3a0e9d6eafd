from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from appliance.health import Health, Life
from appliance.model import Intent
from appliance.options import Target, parse_target
from appliance.pathprobe import NoAnswer, ask
from appliance.paths import Paths
from appliance.status import LayerState, LinkStatus
from tests.appliance.fakes import POD, SERVICE

UP = LinkStatus("hk", "tun-hk", "up", peer="100.64.240.1")


def lives(signs: str, start: Life = Life.UNKNOWN) -> list[str]:
    health = Health(life=start)
    seen = []
    for sign in signs:
        health.sign(0.01 if sign == "+" else None, "silence")
        seen.append(health.life.value)
    return seen


def test_the_first_answer_is_believed_at_once() -> None:
    assert lives("+") == ["alive"]
    assert lives("---") == ["unknown", "unknown", "dead"]


def test_it_takes_several_signs_in_a_row_to_change_ones_mind() -> None:
    assert lives("--+--+---", Life.ALIVE) == [*["alive"] * 8, "dead"]
    assert lives("+-+-++", Life.DEAD) == [*["dead"] * 5, "alive"]


class World:
    """Links, a store, and who answers."""

    def __init__(self) -> None:
        self.links: tuple[LinkStatus, ...] = (UP,)
        self.intents: Sequence[Intent] = ()
        self.silent: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.told: list[tuple[str, str, str]] = []

    async def statuses(self) -> tuple[LinkStatus, ...]:
        return self.links

    def all(self) -> tuple[Intent, ...]:
        return tuple(self.intents)

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        self.told.append((who, what, cidr))

    async def ask(self, target: Target, device: str) -> float:
        self.asked.append((str(target), device))
        if str(target) in self.silent:
            raise NoAnswer(f"no answer from {target}")
        return 0.02


def probed(world: World, times: int, paths: Paths | None = None) -> Paths:
    paths = paths or Paths(world, world, ask=world.ask)

    async def scenario() -> None:
        for _ in range(times):
            await paths.probe()

    asyncio.run(scenario())
    return paths


def test_an_up_tunnel_that_does_not_forward_is_down() -> None:
    world = World()
    paths = probed(world, 1)
    assert paths.judged(UP) is UP
    world.silent = {"icmp:100.64.240.1"}
    probed(world, 3, paths)
    judged = paths.judged(UP)
    assert (judged.state, judged.code) == ("down", "no-path")
    assert asyncio.run(paths.statuses()) == (judged,)
    world.silent = set()
    probed(world, 2, paths)
    assert paths.judged(UP) is UP
    assert [what for _, what, _ in world.told] == ["path works", "path broke", "path works"]


def test_a_far_end_that_never_answered_a_ping_is_unproven_and_not_down() -> None:
    """Its own firewall may drop pings; sealed probes have proved the session."""
    world = World()
    world.silent = {"icmp:100.64.240.1"}
    paths = probed(world, 5)
    judged = paths.judged(UP)
    assert (judged.state, judged.code) == ("up", "unproven")
    assert "no answer from icmp:100.64.240.1" in judged.reason
    assert world.told == [("link hk", "path unproven", "")]
    world.silent = set()
    probed(world, 2, paths)
    assert paths.judged(UP) is UP


def test_an_answer_in_an_earlier_session_proves_nothing_of_this_one() -> None:
    world = World()
    world.links = (replace(UP, since=1.0),)
    paths = probed(world, 1)
    world.links = (replace(UP, since=2.0),)
    world.silent = {"icmp:100.64.240.1"}
    probed(world, 3, paths)
    assert paths.judged(world.links[0]).code == "unproven"


@pytest.mark.parametrize("once", [True, False])
def test_what_answers_through_a_link_proves_it_though_its_far_end_answers_no_ping(*, once: bool) -> None:
    world = World()
    world.intents = (Intent(SERVICE, "hk", probe=parse_target("tcp:10.96.0.10:80")), Intent(POD, "sg"))
    paths = probed(world, int(once))
    world.silent = {"icmp:100.64.240.1"}
    probed(world, 3, paths)
    assert paths.judged(UP) is UP
    world.silent |= {"tcp:10.96.0.10:80"}
    probed(world, 3, paths)
    assert paths.judged(UP).code == ("no-path" if once else "unproven")


def test_each_cidr_with_a_target_is_asked_through_its_own_device() -> None:
    world = World()
    world.links = (UP, LinkStatus("sg", "tun-sg", "up", peer="100.65.0.1"), LinkStatus("us", "tun-us", "down"))
    http = parse_target("tcp:10.96.0.10:80")
    world.intents = (Intent(POD, "hk"), Intent(SERVICE, "sg", probe=http))
    world.silent = {"tcp:10.96.0.10:80"}
    paths = probed(world, 3)
    assert set(world.asked) == {
        ("icmp:100.64.240.1", "tun-hk"),
        ("icmp:100.65.0.1", "tun-sg"),
        ("tcp:10.96.0.10:80", "tun-sg"),
    }
    assert paths.layer(POD).code == "no-probe"
    assert (paths.layer(SERVICE).state, paths.layer(SERVICE).code) == (LayerState.ERROR, "no-path")
    assert ("probe", "path broke", "10.96.0.0/16") in world.told


def test_another_target_is_judged_afresh() -> None:
    world = World()
    world.intents = (Intent(POD, "hk", probe=parse_target("icmp:10.244.1.20")),)
    world.silent = {"icmp:10.244.1.20"}
    paths = probed(world, 3)
    world.intents = (Intent(POD, "hk", probe=parse_target("icmp:10.244.1.21")),)
    probed(world, 1, paths)
    assert paths.layer(POD).state is LayerState.OK


def test_a_device_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(NoAnswer):
        asyncio.run(ask(Target(parse_target("icmp:127.0.0.1").address), "tun-none"))  # type: ignore[union-attr]
