"""How much memory gtund takes as clients join: one gtund, and many gtun on the appliance's machine.

The gtun side is weighed too, but there all of them share one machine; what counts here is the far end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tests.bench.local import weigh
from tests.bench.metrics import Section
from tests.bench.tunnels import Tunnel, link_toml, link_up, write_private
from tests.lab.space import PYTHON

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.contenders import Contender
    from tests.bench.topology import Net

EXPECTED: Final = ("rss_far", "pss_far")
_AT_ONCE: Final = 4
"""Clients that start together: gtund lets only so many strangers of one address in at a time."""


def name(count: int) -> str:
    """Return the section's name for a number of clients."""
    return f"clients-{count}"


def run(
    net: Net, modes: Sequence[Contender], counts: Sequence[int], tell: Callable[[str], None]
) -> tuple[list[Section], list[str]]:
    """Let more and more clients join; return a section for each count, and what failed."""
    plural = {1: "client"}
    sections = [Section(name(count), f"gtund with {count} {plural.get(count, 'clients')}") for count in counts]
    failures = []
    for mode in modes:
        crowd = Crowd(net, mode)
        try:
            crowd.start_gtund()
            for count, section in zip(counts, sections, strict=True):
                tell(f"{section.name}: {mode.title}")
                crowd.grow(count)
                section.add(mode.key, weigh(crowd), EXPECTED)
        except AssertionError as error:  # tests.lab.space.Failed
            failures.append(f"clients: {mode.title}: {error}")
    return sections, failures


class Crowd(Tunnel):
    """One gtund and a growing number of gtun."""

    def __init__(self, net: Net, mode: Contender) -> None:
        super().__init__(net, net.paths[mode.key], mode)
        self._count = 0

    def grow(self, count: int) -> None:
        """Start gtuns until `count` are up."""
        while self._count < count:
            batch = range(self._count, min(count, self._count + _AT_ONCE))
            for number in batch:
                self._join(f"c{number}")
            for number in batch:
                self.wait(f"client {number}", partial(link_up, self.place / f"c{number}.sock"))
            self._count = batch.stop

    def _join(self, name: str) -> None:
        link = self.place / f"{name}.toml"
        write_private(link, link_toml(self.add_client(name), name, self.contender.link))
        gtun = (*PYTHON, "appliance.tunnel.gtun", "--config", str(link))
        self.start(self.near, name, *gtun, "--control", str(self.place / f"{name}.sock"))
