"""A whole lab: the two networks, and the real programs on their machines.

    with Lab.open() as lab:
        lab.start_all()
        lab.join()
        lab.api("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
        lab["host1"].run("ping", "-c1", "10.244.1.20")

Leaving the block ends everything, also while it is still being built. Waiting is always for a condition with a limit,
and who waits in vain is shown the logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from api.client import Daemon
from api.client import Failed as CallFailed
from tests.lab import ground, programs, topology
from tests.lab.space import PYTHON, ROOT, Done, Failed, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """What a supervisor says of one unit."""

    pid: int | None
    starts: int
    exit: int | None
    ready: bool


@dataclass(slots=True)
class Lab:
    """One lab; `lab["host1"]` is a machine of it."""

    id: str
    spaces: Mapping[str, Space]
    delay: bool = False
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, delay: bool = False) -> Iterator[Self]:
        """Build the networks, with nothing of ours running in them; take all down at the end."""
        lab = ground.claim()
        try:
            made = cls(lab, topology.build(lab, delay=delay), delay)
            try:
                yield made
            finally:
                made.stop()
        finally:
            ground.release(lab)

    def __getitem__(self, name: str) -> Space:
        return self.spaces[name]

    @property
    def directory(self) -> Path:
        """Everything that the lab writes is below."""
        return ground.RUN / self.id

    def place(self, name: str) -> Path:
        """Return the directory of one machine, made on first use."""
        path = self.directory / name
        path.mkdir(mode=0o711, exist_ok=True)
        return path

    # ---- starting -----------------------------------------------------------------------------------------------

    def start(self, machine: str, label: str, *argv: str) -> None:
        """Start a program that stays until the lab ends; it ending earlier fails whatever waits."""
        self.processes[label] = self[machine].start(label, *argv)

    def start_all(self, *, firewall: str = "iptables") -> None:
        """Start everything but the link, which needs a token first."""
        self.start_pods()
        self.start_cloud()
        self.start_gtund()
        self.start_appliance(firewall=firewall)

    def start_pods(self) -> None:
        """Start a real nginx in every pod."""
        for pod in topology.PODS:
            place = self.place(pod)
            (place / "html").mkdir()
            (place / "html" / "index.html").write_text(f"<h1>Welcome to nginx!</h1><p>This is {pod}.</p>\n")
            (place / "nginx.conf").write_text(programs.nginx_conf(place, pod))
            self.start(pod, f"nginx-{pod}", "nginx", "-p", str(place), "-c", f"{place}/nginx.conf", "-e", "stderr")
        for pod in topology.PODS:
            self.wait(f"nginx in {pod}", (self.place(pod) / "nginx.pid").exists)

    def start_cloud(self, settle_ms: int = 100, quota: int = 200, user_data: str = "", public_key: str = "") -> None:
        """Start the cloud: its API, metadata service and virtual router."""
        place = self.place("vrouter")
        (place / "world.toml").write_text(programs.world(settle_ms, quota, user_data, public_key))
        self.start("vrouter", "emulator", *programs.emulator(place))
        self.wait("the emulator", lambda: "ready" in (self.directory / "log" / "emulator.log").read_text())

    def start_gtund(self, *more: str, listen: str = "0.0.0.0") -> None:
        """Start the far end, under a supervisor of its own; it serves `more` than the pods and the service."""
        place = self.place("gtund")
        (place / "gtund.toml").write_text(programs.gtund_toml(place, *more, listen=listen))
        (place / "units.json").write_text(programs.gtund_units(place))
        self._supervise("gtund")
        self.wait("gtund", (place / "run" / "gtund.sock").exists)

    def start_appliance(self, *, firewall: str = "iptables", quota: int = 200) -> None:
        """Start both daemons, and what plays systemd for them and the links; return when the API answers."""
        place = self.place("appliance")
        (place / "nexthop.toml").write_text(programs.nexthop_toml(place, firewall=firewall, quota=quota))
        (place / "units.json").write_text(programs.appliance_units(place))
        self._shortcut(place)
        self._supervise("appliance")
        self.wait_for_api()

    def open_console(self, port: int = 0) -> str:
        """Make the console reachable from this machine's own browser, and return its address.

        A door on the loopback of the root namespace leads to the appliance's TLS listener and is shut with the lab;
        where `port` is taken, another one is.
        """
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind(("127.0.0.1", port))
            except OSError:
                door.bind(("127.0.0.1", 0))
            door.listen(64)
            handed = (str(door.fileno()), str(programs.API_PORT))
            argv = (*PYTHON, "tests.lab.door", *handed)
            self.processes["door"] = self["appliance"].start("door", *argv, hand=(door.fileno(),))
            return f"https://127.0.0.1:{door.getsockname()[1]}"

    @property
    def certificate(self) -> Path:
        """The certificate, with its key, that the API made for itself."""
        return self.place("appliance") / "state" / "api" / "tls.pem"

    def token(self, name: str, scope: str = "write") -> str:
        """Return a fresh token for the API."""
        return str(self.api("POST", "/v1/tokens", {"name": name, "scope": scope})["token"])

    def start_visitor(self) -> None:
        """Let host1 fetch from the pods for as long as the lab is up, so that there is something to see."""
        for pod in topology.PODS:
            (self.place(pod) / "html" / "blob").write_bytes(bytes(256 * 1024))
        self.start("host1", "visitor", *PYTHON, "tests.lab.visitor", *topology.PODS.values())

    def wait_for_api(self) -> None:
        """Return when the daemon answers."""
        self.wait("the API", self._answers)

    def join(self, link: str = programs.LINK, client: str = "shenzhen", *options: str) -> None:
        """Let the far end write a join token for the appliance, the appliance take it, and the link come up.

        `options` are those of `gtund client add`.
        """
        add = programs.gtund(self.place("gtund"), "client", "add", client, *options)
        token = self["gtund"].run(*add).stdout
        self.nexthop("link", "join", link, stdin=token)
        self.wait(f"link {link}", lambda: self.link(link)["state"] == "up")

    # ---- asking -------------------------------------------------------------------------------------------------

    def api(self, method: str, target: str, body: object = None) -> Any:
        """Send one request to the appliance's API and return the decoded body; raise api.client.Failed."""
        return Daemon(str(self.place("appliance") / "run" / "nexthopd.sock")).request(method, target, body)[1]

    def nexthop(self, *command: str, stdin: str = "", check: bool = True) -> Done:
        """Run the operator's command on the appliance."""
        return self["appliance"].run(*programs.nexthop(self.place("appliance"), *command), stdin=stdin, check=check)

    def link(self, name: str = programs.LINK) -> dict[str, Any]:
        """Return one link as the API shows it."""
        (found,) = [link for link in self.api("GET", "/v1/links")["links"] if link["name"] == name]
        return dict(found)

    def cloud_table(self) -> tuple[dict[str, str], ...]:
        """Return the VPC's route table as the cloud's API lists it, asked through the real SDK from the appliance."""
        listed = self["appliance"].run(*PYTHON, "tests.lab.cloudtable").stdout
        return tuple(json.loads(listed))

    # ---- systemd's part -----------------------------------------------------------------------------------------

    def unit(self, machine: str, name: str) -> UnitStatus:
        """Return what the supervisor of a machine says of a unit."""
        return UnitStatus(**json.loads((self.place(machine) / "status" / name).read_text()))

    def kill(self, machine: str, name: str, *, hold: bool = False) -> None:
        """Kill a unit with SIGKILL and return when it is dead; with `hold` it stays so until `let_go`."""
        if hold:
            (self.place(machine) / "hold" / name).touch()
        pid = self.unit(machine, name).pid
        if pid is None:
            raise Failed(f"{name} is not running")
        os.kill(pid, signal.SIGKILL)
        self.wait(f"{name} to die", lambda: self.unit(machine, name).pid != pid)

    def let_go(self, machine: str, name: str) -> None:
        """Let a held unit be started again."""
        (self.place(machine) / "hold" / name).unlink()

    # ---- ending -------------------------------------------------------------------------------------------------

    def end(self, label: str) -> None:
        """End one program that `start` started, and forget its log."""
        process = self.processes.pop(label)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        (self.directory / "log" / f"{label}.log").unlink(missing_ok=True)

    def stop(self) -> None:
        """Ask every program to end, the last started first; what does not is ended by the lab's own end."""
        for process in reversed(self.processes.values()):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(8)
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        self.processes.clear()

    def wait(self, what: str, condition: Callable[[], T], limit: float = 30.0) -> T:
        """Return the condition's first true value; raise `Failed`, with the ends of all logs, after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not (value := condition()):
            for label, process in self.processes.items():
                if process.poll() is not None:
                    raise Failed(f"{label} ended with {process.returncode} while waiting for {what}\n{self.logs()}")
            if time.monotonic() > deadline:
                raise Failed(f"waited {limit:g} s for {what} in vain\n{self.logs()}")
            time.sleep(0.02)
        return value

    def logs(self, lines: int = 12) -> str:
        """Return the last lines of every log."""
        paths = sorted(self.directory.glob("log/*.log")) + sorted(self.directory.glob("*/log/*.log"))
        tails = {path: path.read_text(errors="replace").splitlines()[-lines:] for path in paths}
        return "\n".join("\n".join((f"--- {path.name}", *tail)) for path, tail in tails.items() if tail)

    def _answers(self) -> bool:
        with contextlib.suppress(CallFailed):
            return self.api("GET", "/v1/status") is not None
        return False

    def _supervise(self, machine: str) -> None:
        self.start(machine, f"supervisor-{machine}", *PYTHON, "tests.lab.supervisor", str(self.place(machine)))

    def _shortcut(self, place: Path) -> None:
        """Make PLACE/nexthop, the operator's command for this very lab, for people who look around."""
        script = place / "nexthop"
        command = " ".join(shlex.quote(part) for part in programs.nexthop(place))
        script.write_text(f'#!/bin/sh\ncd {shlex.quote(str(ROOT))} && exec {command} "$@"\n')
        script.chmod(0o755)
