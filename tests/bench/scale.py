"""What a thousand CIDRs cost the appliance: ``python -m tests.bench.scale [how many]``, as root.

The real loop on the real kernel, in a network namespace of its own, with each firewall back-end in turn: from the
intents on disk to all of them carried; from one more intent to that one carried; what a pass costs that finds nothing
to do; what the daemon costs while nothing happens; how soon all routes are back that somebody deleted. Processor time
is our own and that of the programs we start.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.forward import Forward, Pace
from appliance.intent import IntentStore
from appliance.kernel.choose import Chosen, backend
from appliance.kernel.route import Routes
from appliance.kernel.state import PROTOCOL
from appliance.links import Links
from appliance.model import Intent, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BACKENDS: Final = ("nftables", "iptables")
_MORE: Final = 15  # single CIDRs added, of which the median counts
_PASSES: Final = 10
_IDLE: Final = 5.0  # seconds
_CLONE_NEWNET: Final = 0x40000000  # uapi/linux/sched.h
_MACHINE: Final = """
ip link set lo up
ip link add eth0 type veth peer name far; ip address add 172.18.2.10/24 dev eth0; ip link set eth0 up
ip link set far up
ip route add default via 172.18.2.253
ip tuntap add dev tun-hk mode tun; ip link set tun-hk alias 'nexthop link hk'
ip address add 100.64.240.50/24 dev tun-hk; ip link set tun-hk up
"""
_LINK: Final = """[link]
name = "hk"
device = "tun-hk"
server = "203.0.113.10:9443"
pin = "pin"
client = "sz"
key = "key"
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, and for `idle` the share of one processor. `writes`: of kernel state, while nothing was to be done.

    `repaired`: until all is back after somebody took all our routes away.
    """

    everything: float
    one_more: float
    one_more_processor: float
    idle_pass: float
    idle: float
    writes: int
    repaired: float


class _Nobody:
    """Listens to the loop, and agrees to everything."""

    def listens(self) -> bool:
        return True

    async def removing(self, carrying: frozenset[Network], networks: frozenset[Network]) -> frozenset[Network] | None:
        return frozenset()

    def gone(self, revisions: Mapping[Network, int]) -> None: ...

    def repaired(self, kind: str, what: str, count: int = 1) -> None: ...

    def passed(self, seconds: float) -> None:
        """Told, and of no use here."""

    def publish(self) -> None: ...


def cidr(number: int) -> Network:
    """Return one of many /24 of 10.0.0.0/8."""
    return ip_network((10 << 24 | number << 8, 24))


def measure(name: str, count: int) -> Figures:
    """Measure one back-end, in a new network namespace."""
    with _namespace(), tempfile.TemporaryDirectory() as place:
        subprocess.run(["sh", "-euc", _MACHINE], check=True)
        state = Path(place)
        (state / "links").mkdir()
        (state / "links" / "hk.toml").write_text(_LINK, encoding="ascii")
        return asyncio.run(_measure(name, count, state))


async def _measure(name: str, count: int, state: Path) -> Figures:
    store = IntentStore(state / "nexthop.db")
    for number in range(count):
        store.put(Intent(cidr(number), "hk"))
    firewall = backend(name)
    firewall.purge()  # what a first use of a back-end costs, its probe has paid
    async with Routes() as routes, asyncio.TaskGroup() as group:
        forward = Forward(store, Links(state, state), routes, Chosen(firewall), _Nobody(), pace=Pace())
        store.on_change(forward.wake)
        begin = time.perf_counter()
        loop = group.create_task(forward.run())
        await _until(lambda: len(forward.carrying) == count)
        everything = time.perf_counter() - begin
        several = []
        for number in range(count, count + _MORE):
            await asyncio.sleep(0.2)  # the passes that our own events wake are over
            store.put(Intent(cidr(number), "hk"))
            begin, before = time.perf_counter(), _processor()
            await _until(lambda number=number: cidr(number) in forward.carrying)  # type: ignore[misc]
            several.append((time.perf_counter() - begin, _processor() - before))
        await asyncio.sleep(0.5)
        writes, idle_pass = firewall.writes + routes.writes, []
        for _ in range(_PASSES):
            before = _processor()
            forward.wake()
            await asyncio.sleep(0.3)
            idle_pass.append(_processor() - before)
        before, begin = _processor(), time.perf_counter()
        await asyncio.sleep(_IDLE)
        idle = (_processor() - before) / (time.perf_counter() - begin)
        writes = firewall.writes + routes.writes - writes
        flush = ("ip", "-4", "route", "flush", "proto", str(PROTOCOL))
        subprocess.run(flush, check=True)  # noqa: ASYNC221 - the daemon is not to see it half done
        begin = time.perf_counter()
        while len((await routes.observe()).routes) < 2 * (count + _MORE):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        repaired = time.perf_counter() - begin
        loop.cancel()
    store.close()
    one_more, busy = map(statistics.median, zip(*several, strict=True))
    return Figures(everything, one_more, busy, statistics.median(idle_pass), idle, writes, repaired)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def _namespace() -> Iterator[None]:
    """Be in a new network namespace; it ends with the last thread that is in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home:  # noqa: PTH123
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare: this needs root")
        try:
            yield
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)


def main() -> None:
    """Print a line for each back-end and number of CIDRs."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for name in _BACKENDS:
        for count in (1, most):
            found = measure(name, count)
            sys.stdout.write(
                f"{name:9} {count:5} CIDRs: all applied {found.everything:.3f} s, "
                f"one more {found.one_more * 1e3:.1f} ms "
                f"({found.one_more_processor * 1e3:.1f} ms of CPU), "
                f"a pass without change {found.idle_pass * 1e3:.0f} ms of CPU, idle {found.idle:.1%} of a CPU, "
                f"{found.writes} writes; all routes deleted: back in {found.repaired:.2f} s\n"
            )


if __name__ == "__main__":
    main()
