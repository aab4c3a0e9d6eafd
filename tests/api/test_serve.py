"""The daemon as its supervisor sees it: exit codes, signals, readiness. What forwards has a namespace of its own.

There nexthop-forward runs beside it, and dies with it. nexthopd has no capability, as in the image.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.client import Daemon, NotRunning, Refused

from .conftest import ROOT, TOKEN, command

CONFIG = """
[paths]
state = "{home}/state"
run = "{home}/run"
[cloud]
provider = "{provider}"
metadata = "http://127.0.0.1:9"
"""
# what gtun would make
TUN = """
ip tuntap add tun-hk mode tun
ip link set tun-hk alias "nexthop link hk"
ip addr add 100.64.240.50/24 dev tun-hk
ip link set tun-hk up
"""
# eth0 leads to a VPC
GROUND = """
set -e
ip link set lo up
ip link add eth0 type veth peer name other
ip link set other up
ip addr add 172.18.2.10/24 dev eth0
ip link set eth0 up
ip route add default via 172.18.2.253
exec "$@"
"""


def run_daemon(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.serve", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_says_how_to_name_a_configuration() -> None:
    done = run_daemon("--help")
    assert done.returncode == 0
    assert "--config FILE" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[paths]\nstates = '/x'", "paths.states"),
        ("[api]\ngroup = 5", "api.group"),
        ("[nonsense]", "nonsense"),
        ("state = ", "TOML"),
        (None, "--config"),
    ],
)
def test_a_bad_configuration_ends_with_2_and_one_line_that_names_it(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "nexthop.toml"
    if text is not None:
        file.write_text(text)
    done = run_daemon("--config", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("nexthopd: ")
    assert str(file) in line
    assert said in line


def test_a_bad_configuration_is_told_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom api.serve import main\n"
        "try:\n    main(['--config', '/nowhere'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert {"fastapi", "uvicorn", "pyroute2", "iptc", "aliyunsdkcore"}.isdisjoint(done.stdout.split())


@dataclass
class Running:
    """A daemon in a network namespace that dies with it."""

    process: subprocess.Popen[str]
    home: Path
    heard: socket.socket

    @property
    def socket(self) -> Path:
        return self.home / "run" / "nexthopd.sock"

    @property
    def daemon(self) -> Daemon:
        return Daemon(str(self.socket), timeout=10)

    def hears(self, what: bytes) -> None:
        assert self.heard.recv(64) == what

    def inside(self, *words: str) -> str:
        enter = ["nsenter", "-t", str(self.process.pid), "-n", *words]
        return subprocess.run(enter, capture_output=True, text=True, timeout=30, check=True).stdout

    def ends(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def running(home: Path, provider: str = "none") -> Iterator[Running]:
    """Start nexthopd; what it tells systemd is heard here."""
    (home / "nexthop.toml").write_text(CONFIG.format(home=home, provider=provider))
    (home / "notify").unlink(missing_ok=True)
    config = ["--config", str(home / "nexthop.toml"), "--verbose"]
    bare = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    daemon = [*bare, sys.executable, "-m", "api.serve", *config]
    forward = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "appliance.forwardd", *config]
    before = TUN if (home / "state" / "links" / "hk.toml").exists() else ""
    before += f"env -u NOTIFY_SOCKET {' '.join(forward)} 2>{home}/forward.log &\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(home / "notify"))
        heard.settimeout(30)
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", GROUND.replace("exec", f"{before}\nexec"), "sh", *daemon],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(home / "notify")},
        )
        try:
            yield Running(process, home, heard)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.lab
def test_the_daemon_carries_a_cidr_and_leaves_it_carried_when_it_is_told_to_stop(tmp_path: Path) -> None:
    with running(tmp_path) as nexthopd:
        nexthopd.hears(b"READY=1")
        cli = command(nexthopd.socket)
        assert cli("link", "join", "hk", stdin=TOKEN).returncode == 0
        nexthopd.inside("sh", "-c", TUN)
        assert cli("cidr", "add", "10.244.0.0/16", "--timeout", "30").returncode == 0
        assert cli("cidr", "add", "172.18.2.0/24").returncode == 1
        routes = nexthopd.inside("ip", "route")
        assert "10.244.0.0/16 dev tun-hk proto 110 scope link metric 50" in routes
        assert "unreachable 10.244.0.0/16 proto 110 metric 4000" in routes
        witness = subprocess.Popen(["nsenter", "-t", str(nexthopd.process.pid), "-n", "sleep", "600"])
        try:
            nexthopd.process.send_signal(signal.SIGTERM)
            code, said = nexthopd.ends()
            nexthopd.hears(b"STOPPING=1")
            left = subprocess.run(
                ["nsenter", "-t", str(witness.pid), "-n", "ip", "route"], capture_output=True, text=True, check=True
            ).stdout
        finally:
            witness.kill()
            witness.wait()
        assert code == 0, said
        assert left == routes
        assert not nexthopd.socket.exists()
        assert TOKEN not in said
        with pytest.raises(NotRunning):
            nexthopd.daemon.get("/livez")


@pytest.mark.lab
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_starts_it_ends_with_0(tmp_path: Path, which: signal.Signals) -> None:
    with running(tmp_path) as nexthopd:
        until((tmp_path / "state").exists)
        nexthopd.process.send_signal(which)
        code, said = nexthopd.ends()
    assert code == 0, said
    assert "Traceback" not in said


@pytest.mark.lab
def test_what_was_asked_for_survives_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as nexthopd:
        nexthopd.hears(b"READY=1")
        nexthopd.daemon.request("POST", "/v1/links", {"name": "hk", "token": TOKEN})
        nexthopd.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
        nexthopd.process.kill()
        nexthopd.ends()
        assert nexthopd.socket.exists()
    with running(tmp_path) as nexthopd:  # the stale socket is no obstacle, and forwarding starts before the API
        nexthopd.hears(b"READY=1")
        assert "10.244.0.0/16 dev tun-hk" in nexthopd.inside("ip", "route")
        assert [each["cidr"] for each in nexthopd.daemon.get("/v1/cidrs")["cidrs"]] == ["10.244.0.0/16"]


@pytest.mark.lab
def test_without_its_cloud_it_forwards_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, provider="aliyun") as nexthopd:
        nexthopd.hears(b"READY=1")
        nexthopd.daemon.request("POST", "/v1/links", {"name": "hk", "token": TOKEN})
        with pytest.raises(Refused) as caught:
            nexthopd.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
        assert caught.value.code == "vpc-unknown"
        _, made = nexthopd.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16", "force": True})
        assert [warning["code"] for warning in made["warnings"]] == ["vpc-unknown"]
        nexthopd.inside("sh", "-c", TUN)
        until(lambda: "10.244.0.0/16 dev tun-hk" in nexthopd.inside("ip", "route"))
        until(lambda: nexthopd.daemon.get("/v1/status")["cloud"]["error"] is not None)
        done = command(nexthopd.socket)("status", "--json")
        assert done.returncode == 1
        status = json.loads(done.stdout)
        assert status["cloud"]["error"]["code"] == "cloud-unavailable"
        assert "cloud-unavailable" in [finding["code"] for finding in status["findings"]]
        nexthopd.process.send_signal(signal.SIGINT)
        assert nexthopd.ends()[0] == 0


@pytest.mark.lab
def test_a_second_daemon_leaves_the_first_alone(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.hears(b"READY=1")
        done = run_daemon_inside(first)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == f"nexthopd: another nexthopd works in {first.home}/state: stop it first"
        assert "Traceback" not in done.stderr
        assert first.daemon.get("/livez") == {"status": "ok"}


@pytest.mark.lab
def test_what_is_in_the_way_of_the_socket_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "nexthopd.sock").write_text("precious")
    with running(tmp_path) as nexthopd:
        code, said = nexthopd.ends()
    assert code == 1
    assert said.splitlines()[-1].startswith(f"nexthopd: {tmp_path}/run/nexthopd.sock is in the way")
    assert "Traceback" not in said


def run_daemon_inside(first: Running) -> subprocess.CompletedProcess[str]:
    enter = ["nsenter", "-t", str(first.process.pid), "-n", sys.executable, "-m", "api.serve"]
    return subprocess.run(
        [*enter, "--config", str(first.home / "nexthop.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
