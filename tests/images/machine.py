"""A virtual machine in the place of the lab's appliance: QEMU without KVM, on a TAP of the vSwitch's bridge.

To the machine all is as in the cloud: DHCP gives it its address, its product name is that of an ECS instance, and
100.100.100.200 tells it who it is, whom to let in, and its user-data. We look into it by SSH, as its operator would.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from tests.images.search import PARTITION
from tests.lab import topology
from tests.lab.space import Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.lab import Lab

PRODUCT: Final = "Alibaba Cloud ECS"
BOOT_SECONDS: Final = 600.0
"""For a boot: without KVM an instruction takes some ten times as long, and the machine is not ours alone."""

_BRIDGE: Final = "vsw-app"
_TAP: Final = "p-vm"
_GATEWAY: Final = "172.18.2.253"


@dataclass(frozen=True, slots=True)
class Machine:
    """The appliance's VM. Made by `plugged_in`; `lab` owns its processes. `disks`: /run may be too small for it."""

    lab: Lab
    image: Path
    directory: Path
    disks: Path

    @classmethod
    @contextlib.contextmanager
    def plugged_in(cls, lab: Lab, image: Path, disks: Path) -> Iterator[Self]:
        """Take the lab's own appliance off the net, and put a machine with a copy-on-write disk of `image` there."""
        made = cls(lab, image, lab.place("vm"), disks)
        made.directory.chmod(0o700)
        shutil.rmtree(disks, ignore_errors=True)
        disks.mkdir()
        router = lab["vrouter"]
        router.shell(f"""
            ip link del p-appliance
            ip tuntap add {_TAP} mode tap
            ip link set {_TAP} master {_BRIDGE} up""")
        lab.start("vrouter", "dnsmasq", *made._dhcp())
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made.key], check=True)
        try:
            yield made
        finally:
            shutil.rmtree(disks)

    @property
    def key(self) -> str:
        """The private key that opens it."""
        return f"{self.directory}/key"

    @property
    def public_key(self) -> str:
        """Of the key pair that it is started with."""
        return (self.directory / "key.pub").read_text().strip()

    @property
    def disk(self) -> Path:
        """Its disk."""
        return self.disks / "disk.qcow2"

    def make(self) -> None:
        """Make it anew from the image, and start it for the first time."""
        disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self.image), str(self.disk)]
        subprocess.run(disk, check=True)
        self._power_on()

    def end(self) -> None:
        """End it, as an instance that is released."""
        self._hang_up()
        self.lab.end("vm")

    def _power_on(self) -> None:
        mac = topology.MAC["appliance"]
        self.lab.start(
            "vrouter",
            "vm",
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024", "-no-user-config"),
            *("-smbios", f"type=1,manufacturer=Alibaba Cloud,product={PRODUCT}"),
            *("-drive", f"file={self.disk},if=virtio,discard=unmap"),
            *("-netdev", f"tap,id=net,ifname={_TAP},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net,mac={mac},romfile="),
            *("-device", "virtio-rng-pci", "-display", "none", "-serial", f"file:{self.directory}/console.log"),
            *("-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"),
        )

    def reset(self) -> None:
        """Press the reset button: nothing in it is told, and what it had not written to its disk is lost."""
        self._hang_up()
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.connect(f"{self.directory}/qmp")
            lines = qmp.makefile("rw")
            for command in ("qmp_capabilities", "system_reset"):
                lines.write(json.dumps({"execute": command}) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise Failed(f"qemu: {command}: {answer['error']}")

    def run(self, *argv: str, stdin: str = "", check: bool = True, timeout: float = 300) -> Done:
        """Run a command in it as root."""
        command = " ".join(shlex.quote(part) for part in argv)
        return self.lab["vrouter"].run(*self._ssh(), command, stdin=stdin, check=check, timeout=timeout)

    def shell(self, script: str, *, check: bool = True, timeout: float = 300) -> str:
        """Run a script in it as root and return what it printed."""
        return self.run("sh", "-eu", "-c", script, check=check, timeout=timeout).stdout.strip()

    def copy(self, source: Path, destination: str) -> None:
        """Copy a file, or what is in a directory, into a directory there, which is made."""
        files = [source.name] if source.is_file() else ["."]
        parent = source.parent if source.is_file() else source
        packed = subprocess.Popen(["tar", "-C", str(parent), "-c", *files], stdout=subprocess.PIPE)
        try:
            place = shlex.quote(destination)
            command = f"mkdir -p {place} && tar -C {place} -x --no-same-owner --touch"
            inside = ("nsenter", f"--net=/run/netns/{self.lab['vrouter'].full}", "--", *self._ssh(), command)
            subprocess.run(inside, stdin=packed.stdout, check=True, timeout=300)
        finally:
            packed.kill()
            packed.wait()

    def answers(self) -> bool:
        """Tell whether it lets us in."""
        try:
            return self.run("true", check=False, timeout=30).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def wait(self, what: str, condition: Callable[[], object], limit: float = 120) -> float:
        """Return the seconds that it took until the condition held; show the console where it never does."""
        begin = time.monotonic()
        try:
            self.lab.wait(what, condition, limit)
        except Failed as error:
            console = (self.directory / "console.log").read_text(errors="replace")[-3000:]
            raise Failed(f"{error}\n--- console\n{console}") from None
        return time.monotonic() - begin

    def door(self) -> str:
        """Return the command that logs in, for people."""
        return f"nsenter --net=/run/netns/{self.lab['vrouter'].full} " + " ".join(self._ssh())

    def state(self) -> str:
        """Return what it says of itself, for whoever has to find out what went wrong."""
        script = "systemctl --failed; systemctl list-jobs; journalctl -b -n 60 --no-pager -u 'nexthop*'; nexthop status"
        try:
            return self.shell(script.replace("; ", " || true; "), check=False, timeout=120)
        except (Failed, subprocess.TimeoutExpired) as error:
            return str(error)

    def save(self, place: Path) -> None:
        """Save what may tell why: the journal of all boots, the console, and the logs of the lab's programs."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.lab.directory / "log", place)
        with contextlib.suppress(OSError):
            shutil.copy(self.directory / "console.log", place)
        with contextlib.suppress(Failed, subprocess.TimeoutExpired):
            (place / "journal").write_text(self.shell("journalctl --no-pager --output=short-precise", timeout=120))
            return
        raw, found = self.disks / "raw", place / "journal.d"  # it lets nobody in: as far as it has reached the disk
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", str(self.disk), str(raw)], check=True)
        found.mkdir()
        dump = ["debugfs", "-R", f"rdump /var/log/journal {found}", f"{raw}?offset={PARTITION}"]
        subprocess.run(dump, check=False, capture_output=True)
        with (place / "journal").open("w") as file:
            subprocess.run(["journalctl", f"--directory={found}/journal", "--no-pager"], check=False, stdout=file)

    def _hang_up(self) -> None:
        """Give up the connection that is kept for all commands: what it leads to is about to be gone."""
        ssh, last = self._ssh()[:-1], self._ssh()[-1]
        self.lab["vrouter"].run(*ssh, "-O", "exit", last, check=False)

    def _ssh(self) -> tuple[str, ...]:
        options = {
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ControlMaster": "auto",
            "ControlPersist": "60",
            "ControlPath": f"{self.directory}/ssh",
            "ServerAliveInterval": "10",
        }
        given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ("ssh", "-F", "none", "-i", self.key, *given, f"root@{topology.APPLIANCE}")

    def _dhcp(self) -> tuple[str, ...]:
        lease = f"{topology.MAC['appliance']},{topology.APPLIANCE},i-nexthop,infinite"
        return (
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--log-dhcp"),
            *(f"--interface={_BRIDGE}", "--bind-interfaces", "--log-facility=-", "--leasefile-ro", "--no-ping"),
            *(f"--dhcp-range={topology.APPLIANCE},static,255.255.255.0", f"--dhcp-host={lease}"),
            *(f"--dhcp-option=option:router,{_GATEWAY}", "--dhcp-authoritative", f"--pid-file={self.directory}/dhcp"),
        )
