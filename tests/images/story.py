"""The image's story, as checks: each does one thing to a machine made from it, raises `Failed` where it does not hold,
and returns its figure. In this order: what a later step needs, an earlier one has shown.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from appliance.links import Links
from tests.images import build
from tests.images.faults import Fault, spoiled
from tests.images.machine import PATIENCE, Machine
from tests.lab import probes, programs, topology
from tests.lab.space import PYTHON, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.lab.lab import Lab

UNITS: Final = ("nexthop-forward.service", "nexthopd.service", f"nexthop-gtun@{programs.LINK}.service")
_POD: Final = topology.PODS["pod1"]
_HOST: Final = topology.HOSTS["host1"]
_PORT: Final = 7000
_WHEELS: Final = "/root/wheels"
_SEEN: Final = 1.0  # seconds between looks into a machine as slow as this


@dataclass(slots=True)
class Story:
    """The steps. `machine` is made by the first one."""

    lab: Lab
    vm: Machine
    token: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield each step's name and its check."""
        yield "start pods, gtund, and a cloud with user-data", self.start
        yield "first boot: host1 fetches a page through the machine", self.first_boot
        yield "user-data came by the AliYun datasource", self.datasource
        yield "units started in their order", self.order
        yield "nexthop-verify: every claim holds", self.verify
        yield "exposure, by systemd-analyze security", self.exposure
        yield "the machine is provisioned again: nothing changes", self.provisioned_twice
        yield "a stop leaves the data plane forwarding", self.stopped
        yield "a hung daemon is restarted by the watchdog", self.watchdog
        yield "the previous commit's wheel is installed", self.previous
        yield "upgrade to this one under a held connection", self.upgrade
        yield "a wheel whose daemon does not start is taken back", lambda: self.taken_back(Fault.DOES_NOT_START)
        yield "a wheel whose daemon is unwell is taken back", lambda: self.taken_back(Fault.UNWELL)
        yield "reset hard: it routes again without help", self.reset
        yield "the other role, from the same image: it lets a client in", self.far_end

    # ---- boot -------------------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start the lab's programs; the far end writes the token that the machine's user-data carries."""
        self.lab.start_pods()
        self.lab.start_gtund()
        self.lab.start("pod1", "held-answer", *PYTHON, "tests.images.held", "answer", _POD, str(_PORT))
        client = programs.gtund(self.lab.place("gtund"), "client", "add", "shenzhen")
        self.token = self.lab["gtund"].run(*client).stdout.strip()
        firstboot = {
            "role": "appliance",
            "links": {programs.LINK: self.token},
            "cidrs": [topology.POD_CIDR, {"cidr": topology.SERVICE_CIDR, "via": programs.LINK}],
            "cloud": {"endpoint": topology.CLOUD_API, "protocol": "http", "resync_seconds": 5},
        }
        self._start_cloud(firstboot)
        return f"{len(self.lab.processes)} programs"

    def first_boot(self) -> str:
        """Switch it on, and wait for a page that came through it."""
        begin = time.monotonic()
        self.vm.make()
        self.vm.wait("a page through the machine", self._fetches)
        took = time.monotonic() - begin
        self.vm.wait("the first boot to be done", self._set_up)
        return f"{took:.0f} s after power on"

    def datasource(self) -> str:
        """See who cloud-init says it was, and that the document with its token is gone."""
        found = self.vm.shell("cloud-id; cat /sys/class/dmi/id/product_name; ls -A /etc/nexthop")
        if "aliyun" not in found or "firstboot.yaml" in found:
            raise Failed(f"not by AliYun, or the document is still there: {found}")
        return found.splitlines()[0]

    def order(self) -> str:
        """See that each unit was ready before the one that comes after it."""
        stamps = [int(self._property(unit, "ActiveEnterTimestampMonotonic")) for unit in UNITS[:2]]
        socket = int(self._property("nexthopd.socket", "ActiveEnterTimestampMonotonic"))
        if not 0 < stamps[0] <= stamps[1] or not 0 < socket <= stamps[1]:
            raise Failed(f"forward {stamps[0]}, socket {socket}, nexthopd {stamps[1]}")
        return f"forward {(stamps[1] - stamps[0]) / 1e6:.1f} s before the API"

    def verify(self) -> str:
        """Run the image's own check."""
        done = self.vm.run("nexthop-verify", check=False)
        if done.returncode or "FAIL" in done.stdout:
            raise Failed(done.stdout + done.stderr)
        ready = re.search(r"^ready (.*) after", done.stdout, re.MULTILINE)
        return f"{done.stdout.count('ok  ')} claims, {f'ready after {ready[1]}' if ready else 'still booting'}"

    def exposure(self) -> str:
        """Return systemd's figures; their limits are verify.sh's."""
        told = [self.vm.shell(f"systemd-analyze security --no-pager {unit} | tail -1") for unit in UNITS]
        scores = [re.search(r": ([\d.]+) ", line) for line in told]
        return ", ".join(score[1] if score else "?" for score in scores)

    def provisioned_twice(self) -> str:
        """Run provision.sh with what it was run with, and see that no file is another one afterwards."""
        self.vm.copy(build.ROOT / "images", "/root/again")
        self.vm.copy(build.WHEELHOUSE, "/root/again/wheelhouse")
        where = "/boot /etc /opt /usr /var/lib/dpkg"
        snapshot = f"find {where} -xdev -printf '%p %y %m %s %T@ %l\\n' | grep -v __pycache__ | sort"
        before = self.vm.shell(snapshot)
        said = self.vm.shell("sh /root/again/provision.sh /root/again/files /root/again/wheelhouse; rm -r /root/again")
        after = self.vm.shell(snapshot)
        changed = set(before.splitlines()) ^ set(after.splitlines())
        if changed or said != "provision: done":
            raise Failed(f"{said}\n" + "\n".join(sorted(changed)[:20]))
        return f"{len(after.splitlines())} files as before"

    # ---- faults -----------------------------------------------------------------------------------------------------

    def stopped(self) -> str:
        """Stop everything but the tunnel, fetch, and start it again."""
        with self._held() as seconds:
            self.vm.shell("systemctl stop nexthopd.socket nexthopd nexthop-forward")
            page = probes.curl(self.lab["host1"], _POD)
            self.vm.shell("systemctl start nexthop-forward nexthopd.socket nexthopd")
        return f"a page in {page.seconds * 1000:.0f} ms, a held connection waited {max(seconds):.1f} s at most"

    def watchdog(self) -> str:
        """SIGSTOP the daemons and gtun: systemd has to notice, and to start others; a connection lives on."""
        before = {unit: self._property(unit, "MainPID") for unit in UNITS}
        begin = time.monotonic()
        with self._held() as seconds:
            self.vm.shell(f"kill -STOP {' '.join(before.values())}")
            self.vm.wait("the watchdog", lambda: all(self._restarted(*each) for each in before.items()))
            took = time.monotonic() - begin
        self.vm.wait("the API", self._well)
        return f"after {took:.0f} s; a held connection waited {max(seconds):.1f} s at most"

    # ---- upgrade ----------------------------------------------------------------------------------------------------

    def previous(self) -> str:
        """Take the machine to the commit before this one, by that one's own code where it knows how to be upgraded."""
        commit, wheel = build.previous(self.vm.directory / "wheels")
        self.vm.copy(wheel, f"{_WHEELS}/previous")
        said = self._upgrade(f"{_WHEELS}/previous/{wheel.name}")
        return f"{commit}: {said.splitlines()[-1]}"

    def upgrade(self) -> str:
        """Upgrade to this tree's wheel; the connection that is held meanwhile must not break."""
        (wheel,) = build.WHEELHOUSE.glob("nexthop-*.whl")
        self.vm.copy(build.WHEELHOUSE, f"{_WHEELS}/this")
        with self._held() as seconds:
            said = self._upgrade(f"{_WHEELS}/this/{wheel.name}")
        return f"{said.splitlines()[-1]}; the connection waited {max(seconds):.1f} s at most"

    def taken_back(self, fault: Fault) -> str:
        """Offer a wheel that is no good: the release from before runs again, the connection holds."""
        (wheel,) = build.WHEELHOUSE.glob("nexthop-*.whl")
        broken = spoiled(wheel, self.vm.directory / fault.name, fault)
        self.vm.copy(broken, f"{_WHEELS}/{fault.name}")
        before = self.vm.shell("readlink /opt/nexthop/current")
        begin = time.monotonic()
        with self._held() as seconds:
            done = self.vm.run(
                "nexthop", "upgrade", f"{_WHEELS}/{fault.name}/{broken.name}", check=False, timeout=PATIENCE
            )
            if done.returncode != 1 or "taken back" not in done.stderr:
                raise Failed(f"it was not taken back: {done.stdout}{done.stderr}")
            self.vm.wait("the old release", self._well)
            took = time.monotonic() - begin
        after = self.vm.shell("readlink /opt/nexthop/current")
        if before != after:
            raise Failed(f"{before} ran before, {after} now")
        return f"well again after {took:.0f} s; the connection waited {max(seconds):.1f} s at most"

    def reset(self) -> str:
        """Press reset, and touch nothing until a host fetches a page again."""
        self.vm.reset()
        begin = time.monotonic()
        self.vm.wait("the machine to be gone", lambda: not self._fetches(), 60)
        self.vm.wait("a page through the machine", self._fetches)
        return f"{time.monotonic() - begin:.0f} s after the reset"

    def far_end(self) -> str:
        """Make a far end of the image, in the hosts' VPC: a machine in Hong Kong joins it, and reaches a host."""
        self.vm.end()
        self.lab.end("supervisor-gtund")
        self.lab.end("emulator")
        tunnel = {"subnet": "100.64.241.0/24", "gateway": "100.64.241.1", "first": "100.64.241.2"}
        firstboot = {
            "role": "gtund",
            "server": {"public": f"{topology.APPLIANCE_EIP}:{programs.GTUND_PORT}"},
            "tunnel": tunnel | {"serve": [f"{_HOST}/32"]},
        }
        self._start_cloud(firstboot)
        begin = time.monotonic()
        self.vm.make()
        self.vm.wait("the first boot to be done", lambda: self.vm.answers() and self._set_up())
        took = time.monotonic() - begin
        claims = self.verify()
        links = self.lab.place("client")
        Links(links, links).join("vm", self.vm.shell("gtund client add hongkong"))
        program = (*PYTHON, "appliance.tunnel.gtun", "--config", f"{links}/links/vm.toml")
        client = self.lab["gtund"]
        self.lab.start("gtund", "gtun-vm", *program)
        self.vm.wait("a session", lambda: "is up" in (client.logs / "gtun-vm.log").read_text())
        client.shell(f"ip route add {_HOST} dev tun-vm")
        rtt = probes.ping(client, _HOST)
        return f"{took:.0f} s after power on; {claims}; a host answers in {rtt:.0f} ms"

    # ---- asking -----------------------------------------------------------------------------------------------------

    def _start_cloud(self, firstboot: Mapping[str, object]) -> None:
        """Start the cloud, whose metadata gives the machine its key and its user-data."""
        file = {"path": "/etc/nexthop/firstboot.yaml", "permissions": "0600", "content": json.dumps(firstboot)}
        user_data = "#cloud-config\n" + json.dumps({"write_files": [file]}, indent=1)
        self.lab.start_cloud(user_data=user_data, public_key=self.vm.public_key)

    def _fetches(self) -> bool:
        try:
            return probes.curl(self.lab["host1"], _POD).status == 200
        except Failed:
            return False

    def _well(self) -> bool:
        """Tell whether the machine says that all is well, and carries everything."""
        time.sleep(_SEEN)
        said = self.vm.run("nexthop", "status", "--json", check=False).stdout
        with contextlib.suppress(ValueError, KeyError, TypeError):
            status = json.loads(said)
            layers = [each["layers"][name]["state"] for each in status["cidrs"] for name in ("kernel", "cloud")]
            return status["verdict"]["level"] == "ok" and set(layers) == {"ok"}
        return False

    def _set_up(self) -> bool:
        time.sleep(_SEEN)
        return self.vm.run("test", "-e", "/etc/nexthop/role", check=False).returncode == 0

    def _property(self, unit: str, name: str) -> str:
        return self.vm.shell(f"systemctl show --property={name} --value {unit}")

    def _restarted(self, unit: str, pid: str) -> bool:
        time.sleep(_SEEN)
        now = self.vm.shell(f"systemctl show --property=MainPID,ActiveState --value {unit}").split()
        return now[0] not in {pid, "0"} and now[1] == "active"

    def _upgrade(self, wheel: str) -> str:
        """Run `nexthop upgrade`; by the wheel's own code where what runs is older than that command."""
        done = self.vm.run("nexthop", "upgrade", "--help", check=False)
        by = [] if done.returncode == 0 else ["env", f"PYTHONPATH={wheel}", "/opt/nexthop/bin/python", "-m"]
        return self.vm.run(*by, "api.cli" if by else "nexthop", "upgrade", wheel, timeout=PATIENCE).stdout.strip()

    @contextlib.contextmanager
    def _held(self) -> Iterator[list[float]]:
        """Hold a connection through the block; the list has the seconds that each line took once it is left."""
        seconds: list[float] = []
        self.vm.wait("a page through the machine", self._fetches)
        host = self.lab["host1"]
        label = f"held-{next(self.numbers)}"
        log = host.logs / f"{label}.log"
        process = host.start(label, *PYTHON, "tests.images.held", "ask", _POD, str(_PORT))

        def lines() -> int:
            return log.read_text().count("\n")

        def goes_on(since: int) -> bool:
            if process.poll() is not None:
                raise Failed(f"the held connection ended: {log.read_text()[-200:]}")
            return lines() > since + 2

        try:
            self.vm.wait("a connection to hold", lambda: goes_on(0))
            yield seconds
            so_far = lines()
            self.vm.wait("the held connection to go on", lambda: goes_on(so_far))
            seconds += map(float, log.read_text().split())
        finally:
            process.kill()
            process.wait()
