"""The whole appliance, in the lab with its cloud and API: how soon a CIDR carries, and what many of them cost.

first packet   from POST /v1/cidrs until a host of the VPC has an answer from a pod; the cloud takes its time for
               nothing here
many CIDRs     the kernel's part by itself (tests.bench.scale), and a flow through the real thing with one and many
beside         requests at the API while a flow runs (tests.bench.apiload)
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from tests.bench import apiload, scale
from tests.bench.metrics import Section
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.plan import Whole

_CIDR: Final = topology.POD_CIDR
_ANSWER: Final = re.compile(r"^\[([\d.]+)\] .* time=([\d.]+) ms", re.MULTILINE)
_PINGS: Final = 1500  # every 2 ms
_BACKEND: Final = "iptables"
_ROOM: Final = 3000  # entries of a route table
_EXPECTED: Final = (
    *("first_packet", "all_applied", "one_more", "idle_pass", "flow_one", "flow_many", "offered_kept"),
    *("requests_failed", "slowest_request"),
)


def run(todo: Whole, mode: str, tell: Callable[[str], None]) -> tuple[Section, list[str]]:
    """Measure everything once; return it, and what failed."""
    section = Section("whole", f"the whole appliance, {todo.cidrs} CIDRs where there are many")
    failures: list[str] = []
    figures: dict[str, float] = {}
    tell(f"whole: {todo.cidrs} CIDRs in the kernel")
    kernel = scale.measure(_BACKEND, todo.cidrs)
    figures["all_applied"], figures["one_more"] = kernel.everything, 1e3 * kernel.one_more
    figures["idle_pass"] = 1e3 * kernel.idle_pass
    try:
        with Lab.open() as lab:
            lab.start_pods()
            lab.start_cloud(settle_ms=0, quota=_ROOM)
            lab.start_gtund()
            lab.start_appliance(firewall=_BACKEND, quota=_ROOM)
            lab.join()
            tell(f"whole: {todo.first_packets} first packets")
            figures["first_packet"] = statistics.median(first_packet(lab) for _ in range(todo.first_packets))
            lab.nexthop("cidr", "add", _CIDR)
            tell("whole: a flow beside requests")
            _alone, beside, asked = apiload.measure(lab, todo.load_seconds)
            figures["offered_kept"] = beside / apiload.OFFERED
            figures["requests_failed"], figures["slowest_request"] = asked.failed, 1e3 * asked.slowest
            tell(f"whole: a flow with one CIDR and with {todo.cidrs}")
            figures |= flows(lab, todo)
    except (Failed, subprocess.SubprocessError, ValueError, KeyError) as error:
        failures.append(f"whole: {error}")
    section.add(mode, figures, _EXPECTED)
    return section, failures


def first_packet(lab: Lab) -> float:
    """Add the CIDR, and return after how many ms a host had its first answer; the CIDR is gone again at the end."""
    command = ("ping", "-n", "-D", "-i", "0.002", "-c", str(_PINGS), topology.PODS["pod1"])
    pinging = lab["host1"].start("ping", *command, stdout=subprocess.PIPE)
    try:
        time.sleep(0.2)  # it is under way, and unanswered
        asked = time.time()
        lab.api("POST", "/v1/cidrs", {"cidr": _CIDR})
        told, _ = pinging.communicate(timeout=30)
    finally:
        pinging.kill()
        lab.nexthop("cidr", "rm", _CIDR, "--timeout", "30")
    found = _ANSWER.search(told)
    if found is None or float(found[1]) < asked:
        raise Failed(f"no answer, or one before it was asked for: {told[-300:]}")
    return 1e3 * (float(found[1]) - asked)


def flows(lab: Lab, todo: Whole) -> dict[str, float]:
    """Return Gbit/s of one flow with one CIDR, and with as many as planned."""
    with_one = flow(lab, todo.flow_seconds)
    others = (str(ip_network((0x0B000000 | number << 8, 24))) for number in range(todo.cidrs - 1))
    for cidr in others:
        lab.api("POST", "/v1/cidrs", {"cidr": cidr, "force": True})
    # The cloud, too: what is still being written there takes the flow's processors.
    lab.wait("all of them in kernel and cloud", lambda: _carried(lab.api("GET", "/v1/cidrs")["cidrs"], todo.cidrs), 120)
    return {"flow_one": with_one, "flow_many": flow(lab, todo.flow_seconds)}


def _carried(cidrs: Sequence[dict[str, Any]], count: int) -> bool:
    return len(cidrs) == count and all(layer["state"] == "ok" for each in cidrs for layer in each["layers"].values())


def flow(lab: Lab, seconds: float) -> float:
    """Return Gbit/s of one TCP flow from a host to a pod."""
    server = lab["pod1"].start("iperf3-server", "iperf3", "-s", "-1", "-p", "5202")
    try:
        lab.wait("iperf3", lambda: "5202" in lab["pod1"].shell("ss -ltnH"))
        command = ("iperf3", "-c", topology.PODS["pod1"], "-p", "5202", "-t", f"{seconds:.0f}", "-J")
        told = lab["host1"].run(*command, timeout=seconds + 30).stdout
    finally:
        server.kill()
        server.wait()
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"]) / 1e9
