from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from api.client import Refused
from appliance.status import CloudStatus, FirewallStatus, Layer, LayerState, Problem

from .conftest import Appliance, Cli


@contextmanager
def gtun(appliance: Appliance, **answer: Any) -> Iterator[None]:
    """Play the control socket of link hk."""
    said = {"name": "hk", "device": "tun-hk", "pid": 1, "state": "up", "code": None, "reason": None, "counters": {}}
    path = appliance.socket.parent / "links" / "hk.sock"
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if answer.get("state") == "stop":
                        return
                    connection.sendall(json.dumps(said | answer).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            answer["state"] = "stop"
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()


UP = {
    "state": "up",
    "server": "203.0.113.10:9443",
    "address": "100.64.240.50/24",
    "peer": "100.64.240.1",
    "since": time.time() - 5.5 * 86400,
    "rtt_ms": 115.2,
}
DENIED = {
    "state": "down",
    "code": "denied",
    "reason": "the server refuses this client's key",
    "server": "203.0.113.10:9443",
    "retry_at": time.time() + 600,
}


def test_all_is_well(joined: Appliance, cli: Cli) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    with gtun(joined, **UP):
        answer = joined.daemon.get("/v1/status")
        done = cli("status")
    assert answer["verdict"] == {"level": "ok", "text": "1 of 1 CIDRs ready, 1 of 1 links up", "next_step": ""}
    assert answer["findings"] == []
    assert answer["links"][0]["rtt_ms"] == 115.2
    assert answer["cidrs"][0]["cidr"] == "10.244.0.0/16"
    assert answer["firewall"] == {"name": "iptables", "fallback_reason": ""}
    assert answer["cloud"]["vpc_id"] == "vpc-1"
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "OK: " + answer["verdict"]["text"]
    assert lines[0].startswith("OK: ")
    assert "up for 5d" in done.stdout
    assert "115.2 ms" in done.stdout
    assert "10.244.0.0/16" in done.stdout


def test_a_link_that_is_down_is_in_the_first_line_with_its_reason(joined: Appliance, cli: Cli) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    with gtun(joined, **DENIED):
        done = cli("status")
        as_json = cli("status", "--json")
    assert done.returncode == as_json.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith(("DEGRADED: ", "BROKEN: "))
    assert "link hk is down" in first
    assert "the server refuses this client's key" in first
    assert "next try in" in done.stdout
    (problem,) = json.loads(as_json.stdout)["findings"]
    assert problem["code"] == "link-denied"
    assert problem["next_step"] in done.stdout


def test_everything_that_is_wrong_is_listed_with_its_next_step(joined: Appliance, cli: Cli) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    joined.kernel.trouble = "ip_forward cannot be set"
    joined.kernel.chosen = FirewallStatus("nftables", "iptables: TCPMSS was not there when read back")
    joined.kernel.mended = {"route": 2}
    joined.cloud.now = Layer(LayerState.PENDING, "waits for the cloud")
    denied = Problem("cloud-denied", "the cloud refuses: Forbidden.RAM", "give the role the permissions")
    joined.cloud.state = CloudStatus("aliyun", error=denied)
    with gtun(joined, **UP):
        done = cli("status")
    assert done.returncode == 1
    assert done.stdout.startswith("DEGRADED: ")
    for text in (
        "ip_forward cannot be set",
        "the cloud refuses: Forbidden.RAM",
        "-> give the role the permissions",
        "nftables (fell back: iptables: TCPMSS was not there when read back)",
        "pending: waits for the cloud",
        "route 2",
    ):
        assert text in done.stdout


def test_it_answers_with_an_unreadable_store(joined: Appliance, cli: Cli) -> None:
    (joined.state / "nexthop.db").write_bytes(b"this is no database" * 1000)
    with gtun(joined, **UP):
        done = cli("status", "--json")
    assert done.returncode == 1
    assert [each["code"] for each in json.loads(done.stdout)["findings"]] == ["store-unavailable"]


def test_a_fresh_appliance_says_what_to_do_first(appliance: Appliance, cli: Cli) -> None:
    done = cli("status")
    assert done.stdout.splitlines()[0] == "OK: there is no link yet"
    assert "nexthop link join" in done.stdout.splitlines()[1]
    assert "nexthop cidr add" in done.stdout


def test_what_came_from_outside_cannot_steer_the_terminal(joined: Appliance, cli: Cli) -> None:
    with gtun(joined, state="down", code="protocol", reason="\x1b[2J\r\nOK: all is well [bold]"):
        done = cli("status")
    assert "\x1b" not in done.stdout
    assert "\nOK: all is well" not in done.stdout
    assert "[bold]" in done.stdout


def test_health_for_supervisors(appliance: Appliance) -> None:
    assert appliance.daemon.get("/livez") == {"status": "ok"}
    assert appliance.daemon.get("/readyz") == {"status": "ok", "cloud": ""}
    appliance.cloud.state = replace(appliance.cloud.state, error=Problem("cloud-unavailable", "no answer", "wait"))
    assert appliance.daemon.get("/readyz") == {"status": "ok", "cloud": "cannot change routes now: no answer"}
    appliance.kernel.passed = False
    with pytest.raises(Refused) as caught:
        appliance.daemon.get("/readyz")
    assert (caught.value.problem["status"], caught.value.code) == (503, "not-ready")
    assert appliance.daemon.get("/livez") == {"status": "ok"}
