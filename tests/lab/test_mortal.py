"""A daemon dies at every boundary between two side effects; the next one brings everything to the same end.

Enumerated, for nexthopd and for nexthop-forward, while the other one lives on: n counts up until the daemon survives
the whole story. What was acknowledged is never lost, nothing is there twice, and what is not ours is as it was, byte
for byte.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from api.client import Failed as CallFailed
from tests.lab import faults, programs, topology
from tests.lab.lab import Lab
from tests.lab.programs import LINK
from tests.lab.space import PYTHON
from tests.lab.topology import POD_CIDR

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

PID = struct.Struct("i")
MANY = 60  # more side effects than any story has
EFFECTS = {"nexthopd": {"commit", "cloud"}, "nexthop-forward": {"netlink", "firewall"}}
FOREIGN = "iptables-legacy -w -{0} FORWARD -s 192.0.2.7 -j DROP; ip route {1} 198.18.0.0/15 via 172.18.2.253"


@dataclass(slots=True)
class Mortal:
    """One of the appliance's two daemons, whose life is counted; the supervisor runs the other one."""

    lab: Lab
    program: str
    line: socket.socket
    pid: int = 0  # 0: dead

    @classmethod
    def open(cls, lab: Lab, program: str) -> Mortal:
        """Prepare its lives."""
        place = lab.place("appliance")
        line, there = socket.socketpair()
        mortal = (*PYTHON, "tests.lab.mortal", program, str(place / "mortal"), str(there.fileno()))
        command = {"nexthopd": programs.nexthopd, "nexthop-forward": programs.forward}[program]
        with there:
            lab.processes["mortal"] = lab["appliance"].start("mortal", *command(place, *mortal), hand=(there.fileno(),))
        return cls(lab, program, line)

    def close(self) -> None:
        """Let there be no further life."""
        self.end()
        self.line.close()
        self.lab.processes.pop("mortal").wait(10)

    def start(self, after: int | None = None) -> None:
        """Start it, to die after so many side effects, or not at all; return when it answers or is dead."""
        self._arm(after)
        self.line.send(b"1")
        (self.pid,) = PID.unpack(self.line.recv(PID.size))
        self.lab.wait("both daemons or an end", lambda: self.dead or self._answers())

    def arm(self, after: int) -> None:
        """Let it die after so many side effects from now on."""
        self._arm(after)
        mark = self.lab.place("appliance") / "mortal"
        os.kill(self.pid, signal.SIGUSR1)
        self.lab.wait("the mark to be read", lambda: not mark.exists())

    def end(self) -> None:
        """Kill it, if it lives."""
        if not self.dead:
            os.kill(self.pid, signal.SIGKILL)
            self.lab.wait("its end", lambda: self.dead)

    @property
    def dead(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            if self.pid:
                (self.pid,) = PID.unpack(self.line.recv(PID.size, socket.MSG_DONTWAIT))
        return self.pid == 0

    def is_done(self, number: int) -> None:
        """Return when it is dead, or has fewer side effects than that."""
        if len(self.did()) >= number:
            self.lab.wait("its end", lambda: self.dead)

    def did(self) -> list[str]:
        """Return the side effects since it was armed."""
        return (self.lab.place("appliance") / "mortal.log").read_text().splitlines()

    def _arm(self, after: int | None) -> None:
        place = self.lab.place("appliance")
        (place / "mortal.log").write_text("")
        if after is not None:
            fresh = place / ".mortal"
            fresh.write_text(str(after))
            fresh.rename(place / "mortal")

    def _answers(self) -> bool:
        """Tell whether the API answers and has heard of a pass."""
        with contextlib.suppress(CallFailed):
            self.lab.api("GET", "/readyz")
            return True
        return False


@pytest.fixture(scope="module", params=["nexthopd", "nexthop-forward"])
def mortal(request: pytest.FixtureRequest, joined: Lab) -> Iterator[Mortal]:
    joined.kill("appliance", request.param, hold=True)
    joined.wait("its end", lambda: joined.unit("appliance", request.param).pid is None)
    made = Mortal.open(joined, request.param)
    try:
        yield made
    finally:
        made.close()
        joined.let_go("appliance", made.program)
        joined.wait_for_api()


@pytest.fixture(scope="module")
def joined() -> Iterator[Lab]:
    with Lab.open() as lab:
        lab.start_cloud()
        lab.start_gtund()
        lab.start_appliance()
        lab.join()
        lab["appliance"].shell(FOREIGN.format("A", "add"))
        yield lab


def standing(lab: Lab) -> tuple[object, ...]:
    """Return all there is of ours, and of others, that must not depend on how often somebody died."""
    entries = [entry for table in (programs.TABLE, programs.MORE_TABLE) for entry in in_the_cloud(lab, table)]
    with closing(sqlite3.connect(lab.place("appliance") / "state" / "nexthop.db")) as db:
        intents = db.execute("SELECT cidr, via, phase FROM intent ORDER BY cidr").fetchall()
    foreign = [faults.routes(lab, protocol=protocol) for protocol in ("boot", "kernel")]
    return faults.rules(lab), faults.routes(lab), sorted(entries), intents, foreign


def in_the_cloud(lab: Lab, table: str) -> list[str]:
    """Return the entries of a table but for their ids, as the cloud's console shows them: that is quick."""
    asked = json.dumps({"Action": "DescribeRouteEntryList", "RouteTableId": table, "MaxResult": 50})
    url = f"http://{topology.CLOUD_API}/_emulator/console"
    shown = json.loads(lab["vrouter"].run("curl", "-sSf", "-X", "POST", "-d", asked, url).stdout)
    said = ("DestinationCidrBlock", "NextHops", "Status", "Type", "RouteEntryName", "Description")
    return [json.dumps([entry[name] for name in said]) for entry in shown["RouteEntrys"]["RouteEntry"]]


def cidrs(lab: Lab) -> list[dict[str, object]]:
    return list(lab.api("GET", "/v1/cidrs")["cidrs"])


def carried(lab: Lab) -> bool:
    return any(all(layer["state"] == "ok" for layer in each["layers"].values()) for each in _layers(lab))


def _layers(lab: Lab) -> list[dict[str, dict[str, dict[str, str]]]]:
    return json.loads(json.dumps(cidrs(lab)))  # type: ignore[no-any-return]


def ask(lab: Lab, method: str) -> bool:
    """Ask for the CIDR, or for its end; return whether that was acknowledged."""
    try:
        if method == "POST":
            lab.api("POST", "/v1/cidrs", {"cidr": POD_CIDR, "via": LINK})
        else:
            lab.api("DELETE", f"/v1/cidrs/{POD_CIDR}")
    except CallFailed:
        return False
    return True


def settle(lab: Lab, method: str) -> None:
    if method == "POST":
        lab.wait("the CIDR to be carried", lambda: carried(lab))
    else:
        lab.wait("the CIDR to be gone", lambda: not cidrs(lab))
    lab.wait("a kernel as wanted", lambda: faults.over(lab))


@pytest.fixture(scope="module")
def references(mortal: Mortal) -> dict[str, tuple[object, ...]]:
    """What it looks like after each step when nobody dies."""
    lab, seen = mortal.lab, {}
    mortal.start()
    for method in ("POST", "DELETE", "POST", "DELETE"):
        assert ask(lab, method)
        settle(lab, method)
        seen[method] = standing(lab)
    mortal.end()
    return seen


def test_a_change_survives_a_death_at_every_boundary(mortal: Mortal, references: dict[str, tuple[object, ...]]) -> None:
    mortal.end()
    mortal.start()
    for number in range(1, MANY):
        came = survives(mortal, "POST", number, references["POST"])
        went = survives(mortal, "DELETE", number, references["DELETE"])
        if came and went:
            break
    else:
        pytest.fail("it dies for ever")
    mortal.end()


def survives(mortal: Mortal, method: str, number: int, reference: tuple[object, ...]) -> bool:
    """Ask, let it die after so many side effects, and see all come to the same end; tell whether it had no more."""
    lab = mortal.lab
    mortal.arm(number)
    acknowledged = ask(lab, method)
    if acknowledged:
        # What it does last may come when the API has long said that all is done.
        done = lambda: _has_settled(lab, method) and standing(lab) == reference  # noqa: E731
        lab.wait("an end of either kind", lambda: mortal.dead or done())
    else:
        lab.wait("its end", lambda: mortal.dead)  # the connection breaks before the kernel has buried it
    mortal.is_done(number)
    told = mortal.did()
    if not mortal.dead:
        assert {effect.split()[0] for effect in told} - {"say"} == EFFECTS[mortal.program], told
        settle(lab, method)
        return True
    mortal.start()
    if not acknowledged and method == "POST" and not cidrs(lab):
        assert ask(lab, method)
    if not acknowledged and method == "DELETE" and any(each["phase"] == "present" for each in cidrs(lab)):
        assert ask(lab, method)
    settle(lab, method)
    assert standing(lab) == reference, told
    return False


def _has_settled(lab: Lab, method: str) -> bool:
    try:
        return carried(lab) if method == "POST" else not cidrs(lab)
    except CallFailed:
        return False


@pytest.mark.iptables
@pytest.mark.parametrize("mortal", ["nexthop-forward"], indirect=True)
def test_a_recovery_survives_a_death_at_every_boundary(
    mortal: Mortal, references: dict[str, tuple[object, ...]]
) -> None:
    """All of ours is gone from the kernel, and every daemon that sets out to put it back dies a little later."""
    lab = mortal.lab
    mortal.end()
    mortal.start()
    ask(lab, "POST")
    settle(lab, "POST")
    mortal.end()
    for number in range(1, MANY):
        lab["appliance"].shell(
            "ip route flush proto 110; iptables-legacy -w -t nat -F; iptables-legacy -w -t mangle -F;"
            "iptables-legacy -w -D FORWARD -m comment --comment nexthop -j NEXTHOP-FORWARD 2>/dev/null || true;"
            "sysctl -qw net.ipv4.ip_forward=0"
        )
        mortal.start(number)
        if not mortal.dead:
            lab.wait("an end of either kind", lambda: mortal.dead or _has_settled(lab, "POST"))
        mortal.is_done(number)
        if not mortal.dead:
            assert number > 4, mortal.did()
            break
        told = mortal.did()
        mortal.start()
        settle(lab, "POST")
        assert standing(lab) == references["POST"], told
        mortal.end()
    else:
        pytest.fail("it dies for ever")
