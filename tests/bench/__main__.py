"""`./run bench`: how fast is it, compared with no tunnel and with the tunnels that Debian has?

    python -m tests.bench                       everything; about fifty minutes
    python -m tests.bench --quick               the gist, in less than four minutes
    python -m tests.bench --json FILE           the readings of every round as well
    python -m tests.bench --only fast,stream    only these sections and contenders (wan-1: that loss alone, in percent)

Sections: fast (no delay, offloads as the kernel has them), plain (the same with TSO, GSO and GRO off everywhere), wan
(115 ms, 200 Mbit/s, losses), clients (gtund's memory), whole (the appliance with its cloud and API). It needs root and
the Debian packages of tests.bench.contenders, works in network namespaces of its own on the first two processors, and
leaves nothing behind.

Exit status: 0 measured, 1 something could not be measured, 3 measured but invalid. A claim that
is missed is a figure like any other.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench import claims, contenders, crowd, local, longline, plan, table, topology, usage, verdict, whole
from tests.bench.machine import describe, missing, versions
from tests.bench.measure import Pod
from tests.bench.metrics import Section, derive
from tests.bench.tunnels import Tunnel
from tests.lab import ground
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.contenders import Contender

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROCESSORS: Final = 2
_DEFAULT: Final = "hybrid"  # the channel that the lab's link has
_LOOK: Final = 2.0
INVALID: Final = 3
_SECTIONS: Final = frozenset({*plan.SECTIONS, *(plan.wan(loss) for loss in plan.FULL.wan.losses)})


def tell(text: str) -> None:
    """Say what is being done, on standard error: standard output is the report."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


class Run:
    """One run: what was asked for, and what came of it."""

    def __init__(self, chosen: plan.Plan, sections: frozenset[str], taking_part: Sequence[Contender]) -> None:
        self.plan, self.wanted, self.taking_part = chosen, sections, taking_part
        self.sections: dict[str, Section] = {}
        self.failures: list[str] = []

    def measure(self) -> None:
        """Do it all, a network at a time."""
        if plan.FAST in self.wanted:
            self._local(Section(plan.FAST, "no delay, offloads on"), self.plan.fast, offloads=True)
        if plan.PLAIN in self.wanted:
            title = "no delay, TSO, GSO and GRO off at the hosts and on the line"
            self._local(Section(plan.PLAIN, title), self.plan.plain, offloads=False)
        if plan.WAN in self.wanted:
            self._wan()
        if plan.CLIENTS in self.wanted and self.plan.clients:
            self._clients()
        if plan.WHOLE in self.wanted and any(one.key == _DEFAULT for one in self.taking_part):
            self._whole()

    def _local(self, section: Section, todo: plan.Local, *, offloads: bool) -> None:
        here = [one for one in self.taking_part if one.takes_part(section.name)]
        with topology.Net.open([one.key for one in here], offloads=offloads) as net:
            pod = Pod(net)
            pod.start()
            tunnels = self._up(net, here)
            tell(f"{section.name}: {todo.rounds} rounds of {', '.join(one.contender.title for one in tunnels)}")
            self.failures += local.run(net, pod, tunnels, todo, section)
        derive(section, contenders.NONE.key)
        self.sections[section.name] = section

    def _wan(self) -> None:
        peers = self.plan.wan.peer_rounds > 0
        losses = [plan.wan(loss) for loss in self.plan.wan.losses]
        here = [
            one for one in self.taking_part if (peers or not one.peer) and any(one.takes_part(name) for name in losses)
        ]
        with topology.Net.open([one.key for one in here], delay=True) as net:
            relay = longline.Relay(net)
            relay.start(0.0, 0)
            Pod(net).start()
            tunnels = self._up(net, here)
            sections, failures = longline.run(net, relay, tunnels, self.plan.wan, tell)
            self.sections |= {section.name: section for section in sections}
            self.failures += failures

    def _clients(self) -> None:
        modes = [one for one in self.taking_part if one.kind is contenders.Kind.OURS and one.takes_part(plan.CLIENTS)]
        with topology.Net.open([mode.key for mode in modes]) as net:
            sections, failures = crowd.run(net, modes, self.plan.clients, tell)
            self.sections |= {section.name: section for section in sections}
            self.failures += failures

    def _whole(self) -> None:
        section, failures = whole.run(self.plan.whole, _DEFAULT, tell)
        self.sections[section.name] = section
        self.failures += failures

    def _up(self, net: topology.Net, here: Sequence[Contender]) -> list[Tunnel]:
        """Bring every contender's tunnel up; one that does not come up is left out, and said so."""
        tunnels = []
        for contender in here:
            tunnel = Tunnel(net, net.paths[contender.key], contender)
            try:
                tunnel.up()
            except Failed as error:
                self.failures.append(str(error))
            else:
                tunnels.append(tunnel)
        return tunnels


def report(run: Run, validity: verdict.Validity, found: dict[str, str], judged: Sequence[claims.Judged]) -> str:
    """Return all that people are told."""
    parts = [table.section(section, found) for section in run.sections.values()]
    return "\n\n\n".join([*parts, table.claims(judged), table.validity(validity, run.failures)]) + "\n"


def work(options: argparse.Namespace, chosen: plan.Plan, names: frozenset[str]) -> int:
    """Measure and report; return the exit status."""
    chosen = replace(chosen, wan=chosen.wan.only(names))
    sections = frozenset(name.partition("-")[0] for name in names & _SECTIONS) or frozenset(plan.SECTIONS)
    taking_part = [one for one in contenders.chosen(names) if one.key in names or one.key not in chosen.without]
    run = Run(chosen, sections, taking_part)
    begin, before = time.time(), usage.machine()
    tell(f"looking at the machine for {_LOOK:g} s")
    time.sleep(_LOOK)
    busy = usage.machine().since(before).share_busy
    run.measure()
    seen = verdict.Machine(
        len(os.sched_getaffinity(0)), round(busy, 3), round(usage.machine().since(before).share_stolen, 3)
    )
    found, judged = versions(), claims.judge(run.sections)
    validity = verdict.judge(run.sections, found, seen)
    sys.stdout.write(report(run, validity, found, judged))
    if options.json:
        told = {
            "format": 1,
            "plan": chosen.name,
            "begun": begin,
            "seconds": round(time.time() - begin, 1),
            "machine": {**describe(), **asdict(seen)},
            "versions": found,
            "valid": validity.valid,
            "reasons": validity.reasons,
            "failures": run.failures,
            "sections": {section.name: asdict(section) for section in run.sections.values()},
            "claims": [{**asdict(one), "outcome": one.outcome.value} for one in judged],
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    tell(f"{time.time() - begin:.0f} s")
    return 1 if run.failures else 0 if validity.valid else INVALID


def guarded(options: argparse.Namespace, chosen: plan.Plan, names: frozenset[str]) -> int:
    """Work and leave nothing, whatever signal comes when; only the first one counts."""
    ground.interrupt_on(*_ENDING)
    try:
        try:
            return work(options, chosen, names)
        finally:
            ground.release_own()
    except ground.Interrupted as interrupted:
        ground.release_own()  # it may have come in the middle of the first
        tell(f"{interrupted}: all taken down")
        return 128 + interrupted.number


def main() -> int:
    """Read the command line."""
    known = (*sorted(_SECTIONS), *(one.key for one in contenders.ALL))
    parser = argparse.ArgumentParser(
        prog="./run bench", description="Compare with no tunnel and with Debian's tunnels."
    )
    parser.add_argument("--quick", action="store_true", help="the gist, in less than four minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading there as well")
    parser.add_argument("--only", default="", metavar="NAME,..", help=f"of {', '.join(known)}")
    options = parser.parse_args()
    names = frozenset(filter(None, options.only.split(",")))
    if unknown := names - set(known):
        parser.error(f"--only: {', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    if os.geteuid() != 0:
        parser.error("it builds network namespaces: run it as root")
    if absent := missing(contenders.chosen(names)):
        parser.error(f"these programs are missing: {', '.join(absent)}; install {' '.join(contenders.PACKAGES)}")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_PROCESSORS])
    return guarded(options, plan.QUICK if options.quick else plan.FULL, names)


if __name__ == "__main__":
    sys.exit(main())
