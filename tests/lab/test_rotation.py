"""A session's keys are made anew while packets flow, and not one of them is lost."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab import control, topology
from tests.lab.flows import Counted, Held, served
from tests.lab.programs import LINK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SOAK: Final = os.environ.get("NEXTHOP_SOAK") == "1"
ROTATIONS: Final = 20 if SOAK else 6
RATE: Final = 2000
POD: Final = topology.PODS["pod1"]


@pytest.fixture(scope="module")
def lab(joined_lab: Lab) -> Iterator[Lab]:
    """Return the joined lab, in which pod1 echoes."""
    with served(joined_lab["pod1"], POD):
        yield joined_lab


@pytest.fixture(params=["hybrid", "stream", "datagram"] if SOAK else ["hybrid"])
def channel(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the link use this channel until the test is over."""
    use(lab, request.param)
    yield request.param
    use(lab, "hybrid")


def use(lab: Lab, mode: str) -> None:
    """Return when the link uses this channel."""
    if not uses(lab, mode):
        file = lab.place("appliance") / "state" / "links" / f"{LINK}.toml"
        kept = [line for line in file.read_text().splitlines() if not line.startswith("channel")]
        file.write_text("\n".join([*kept, f'channel = "{mode}"']) + "\n")
        lab.kill("appliance", control.GTUN)
        lab.wait("the link", lambda: uses(lab, mode))


def uses(lab: Lab, mode: str) -> bool:
    state = control.gtun(lab)
    channels = state.get("channels", {})
    if state.get("state") != "up" or channels.get("mode") != mode or channels.get("connections") != 4:
        return False
    return mode == "stream" or bool(channels["datagram"])


def drops(lab: Lab) -> dict[str, int]:
    """Return what either end has dropped or lost."""
    return {
        f"{end} {name}": count
        for end, counters in (("gtun", control.gtun(lab)["counters"]), ("gtund", control.session(lab)["counters"]))
        for name, count in counters.items()
        if name.startswith(("drop", "lost"))
    }


def test_keys_made_anew_under_load_lose_no_packet(lab: Lab, channel: str) -> None:
    """2,000 numbered datagrams a second, each way, and a TCP connection whose every line is checked."""
    epoch = control.gtun(lab)["channels"]["epoch"]
    before = drops(lab)
    with Held.open(lab["host2"], POD) as held, Counted.open(lab["host1"], POD, RATE) as counted:
        lab.wait("both flows", held.at)
        for number in range(1, ROTATIONS + 1):
            begun = held.at()
            assert control.gtun(lab, "rekey") == {"epoch": epoch + number}
            lab.wait("packets in the new epoch", lambda begun=begun: held.at() > begun + 10)  # type: ignore[misc]
    assert counted.sent > RATE // 4
    lab.wait("both ends to tell", lambda: epochs(lab) == (epoch + ROTATIONS,) * 2)
    assert (counted.missing, drops(lab)) == ((), before)
    sys.stdout.write(f"{channel}: {ROTATIONS} rotations, {counted.sent} datagrams echoed, none missing\n")


def epochs(lab: Lab) -> tuple[int, int]:
    return control.gtun(lab)["channels"]["epoch"], control.session(lab)["channels"]["epoch"]
