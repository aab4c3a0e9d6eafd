"""One measurement each: start the programs on the host, read their figures, and what the tunnel used meanwhile.

Units are those of `metrics.METRICS`. A measurement that does not succeed raises `Failed` with what was printed.
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from tests.bench import topology, traffic, usage
from tests.lab.space import PYTHON, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.topology import Net, Path
    from tests.lab.space import Space

_IPERF_PORT: Final = 5201
_TIME: Final = re.compile(r"time=([\d.]+) ms")
_SPARE: Final = 20.0
"""Seconds that a measurement may take beyond its own duration."""


class Pod:
    """The servers in the pod."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._iperf: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start both and return when they listen."""
        self._net.start(self._net["pod"], "traffic", *PYTHON, "tests.bench.traffic", "serve")
        self.start_iperf()
        self._listening(traffic.PORT)

    def start_iperf(self) -> None:
        """Start iperf3's server, anew if it was there: one whose client was cut off stays busy."""
        if self._iperf is not None:
            topology.end(self._iperf)
        server = ("iperf3", "--server", "--port", str(_IPERF_PORT))
        self._iperf = self._net.start(self._net["pod"], "iperf3", *server)
        self._listening(_IPERF_PORT)

    def _listening(self, port: int) -> None:
        deadline = time.monotonic() + _SPARE
        while not self._net["pod"].run("ss", "-Hltn", f"sport = {port}").stdout.strip():
            if time.monotonic() > deadline:
                raise Failed(f"nothing listens on port {port} in the pod")
            time.sleep(0.02)


def tcp(
    net: Net, path: Path, *, flows: int, down: bool, seconds: float, congestion: str
) -> tuple[float, dict[str, float]]:
    """Run iperf3; return Gbit/s as received, and seconds of processor time per GB by who used it."""
    ends = (net[path.near], net[path.far])
    before = usage.times(ends)
    options = ("--time", f"{seconds:.0f}", "--congestion", congestion, *(["--reverse"] if down else []))
    command = ("iperf3", "--client", path.pod, "--port", str(_IPERF_PORT), "--json", "--parallel", str(flows))
    done = net["host"].run(*command, *options, timeout=seconds + _SPARE, check=False)
    used = usage.times(ends).since(before)
    try:
        received = json.loads(done.stdout)["end"]["sum_received"]
        rate, volume = float(received["bits_per_second"]), float(received["bytes"])
    except (ValueError, KeyError):
        raise Failed(f"iperf3 to {path.key}: {done.stdout[-500:]}{done.stderr}") from None
    if not volume:
        raise Failed(f"iperf3 to {path.key}: nothing arrived")
    gigabytes = volume / 1e9
    cost = {"user": used.user / gigabytes, "system": used.system / gigabytes, "softirq": used.softirq / gigabytes}
    return rate / 1e9, cost


def udp(net: Net, path: Path, size: int, seconds: float) -> float:
    """Return the packets per second that the pod received of all that one process can send."""
    return float(_traffic(net, "udp", path, "--size", size, "--seconds", seconds, limit=seconds)["delivered"])


def request_response(net: Net, path: Path, seconds: float) -> float:
    """Return how often per second one byte goes and comes over one connection."""
    return float(_traffic(net, "rr", path, "--seconds", seconds, limit=seconds)["per_second"])


def connects(net: Net, path: Path, count: int) -> float:
    """Return the median time in ms in which a TCP connection is there."""
    return connected(
        json.dumps(_traffic(net, "connect", path, "--count", count, "--seconds", count * 3, limit=count * 3))
    )


def connected(text: str) -> float:
    """Return the median of the times that tests.bench.traffic printed."""
    return statistics.median(float(took) for took in json.loads(text)["ms"])


def arrived(text: str) -> list[tuple[float, int]]:
    """Return (seconds, bytes so far) as the pod saw a bulk flow arrive; raise `Failed` where it says nothing."""
    try:
        return [(float(seconds), int(count)) for seconds, count in json.loads(text)["marks"]]
    except (ValueError, KeyError, TypeError):
        raise Failed(f"a bulk flow told nothing of itself: {text[-300:]}") from None


def ping(net: Net, path: Path, count: int, every: float) -> float:
    """Return the median round trip in ms."""
    command = ("ping", "-n", "-c", str(count), "-i", f"{every:g}", path.pod)
    return pinged(net["host"].run(*command, timeout=count * every + _SPARE, check=False).stdout)


def pinged(text: str) -> float:
    """Return the median of what ping printed; raise `Failed` if less than half of the answers came."""
    times = [float(found) for found in _TIME.findall(text)]
    sent = re.search(r"(\d+) packets transmitted", text)
    if not times or not sent or len(times) < int(sent[1]) / 2:
        raise Failed(f"too few answers to ping: {text[-300:]}")
    return statistics.median(times)


@contextlib.contextmanager
def background(space: Space, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program beside the block; what is left of it at the end of the block is killed."""
    process = space.start("background", *argv, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answer(process: subprocess.Popen[str], limit: float) -> str:
    """Return all that a program in the background prints, once it ends; raise `Failed` after `limit` seconds."""
    try:
        return process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        raise Failed(f"a measurement in the background does not end within {limit:.0f} s") from None


def traffic_command(do: str, path: Path, *options: object) -> tuple[str, ...]:
    """Return the command line of tests.bench.traffic on the host."""
    return (*PYTHON, "tests.bench.traffic", do, path.pod, *map(str, options))


def _traffic(net: Net, do: str, path: Path, *options: object, limit: float) -> dict[str, Any]:
    done = net["host"].run(*traffic_command(do, path, *options), timeout=limit + _SPARE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
