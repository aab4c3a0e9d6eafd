"""What the API costs the tunnel: 50 requests a second at /v1/status over TLS, beside a flow of 1 Gbit/s.

    python -m tests.bench.apiload [--seconds 30]

The lab's own networks and programs, the flow from a host of the VPC to a pod, the requests on the appliance itself, so
that all share its cores. Both halves are measured: the flow alone, then the flow with the requests. Exit 1 where a
request failed, or where less than nine tenths of what was offered came through.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.lab import programs, topology
from tests.lab.lab import Lab
from tests.lab.space import PYTHON
from tests.lab.story import add_cidrs

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFERED: Final = 1e9  # bits a second
RATE: Final = 50  # requests a second
KEPT: Final = 0.9  # of what was offered
_PORT: Final = 5201


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of the requests. `slowest`: seconds."""

    sent: int
    failed: int
    slowest: float


def ask(address: str, port: int, certificate: str, token: str, seconds: float) -> Asked:
    """Ask for the status at a steady pace, on connections that are kept as long as the server keeps them."""
    context = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection(address, port, timeout=10, context=context)
    begin, sent, failed, slowest = time.monotonic(), 0, 0, 0.0
    while sent < seconds * RATE:
        time.sleep(max(0.0, begin + sent / RATE - time.monotonic()))
        asked = time.monotonic()
        try:
            connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            failed += answer.status != 200 or "verdict" not in json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            failed += 1
            connection.close()
        sent += 1
        slowest = max(slowest, time.monotonic() - asked)
    connection.close()
    return Asked(sent, failed, slowest)


def flow(lab: Lab, seconds: float) -> subprocess.Popen[str]:
    """Start a TCP flow of the offered rate from a host to a pod."""
    server = lab["pod1"].start("iperf3-server", "iperf3", "-s", "-1", "-p", str(_PORT))
    lab.wait("iperf3", lambda: str(_PORT) in lab["pod1"].shell("ss -ltnH"))
    argv = (
        "iperf3",
        "-c",
        topology.PODS["pod1"],
        "-p",
        str(_PORT),
        "-b",
        str(int(OFFERED)),
        "-t",
        str(int(seconds)),
        "-J",
    )
    lab.processes.pop("iperf3-server", None)
    assert server.pid  # it ends with the flow
    return lab["host1"].start("iperf3", *argv, stdout=subprocess.PIPE)


def delivered(process: subprocess.Popen[str]) -> float:
    """Return what came through, in bits a second."""
    told, _ = process.communicate(timeout=120)
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"])


def measure(lab: Lab, seconds: float) -> tuple[float, float, Asked]:
    """Return what came through without and with the requests, and what became of those."""
    token = str(lab.api("POST", "/v1/tokens", {"name": "bench", "scope": "read"})["token"])
    certificate = str(lab.place("appliance") / "state" / "api" / "tls.pem")
    alone = delivered(flow(lab, seconds))
    beside = flow(lab, seconds)
    told = lab["appliance"].run(
        *(*PYTHON, "tests.bench.apiload", "--ask", "127.0.0.1", str(programs.API_PORT), certificate, str(seconds)),
        stdin=token,
        timeout=seconds + 60,
    )
    return alone, delivered(beside), Asked(**json.loads(told.stdout))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.ask:
        address, port, certificate, seconds = options.ask
        found = ask(address, int(port), certificate, sys.stdin.read().strip(), float(seconds))
        print(json.dumps({"sent": found.sent, "failed": found.failed, "slowest": found.slowest}))  # noqa: T201
        return 0
    with Lab.open() as lab:
        lab.start_all()
        lab.join()
        add_cidrs(lab)
        alone, beside, asked = measure(lab, options.seconds)
    print(f"offered {OFFERED / 1e6:.0f} Mbit/s, delivered alone {alone / 1e6:.0f}, with requests {beside / 1e6:.0f}")  # noqa: T201
    print(f"{asked.sent} requests, {asked.failed} failed, the slowest took {asked.slowest * 1000:.0f} ms")  # noqa: T201
    return 0 if not asked.failed and beside >= KEPT * OFFERED else 1


if __name__ == "__main__":
    sys.exit(main())
