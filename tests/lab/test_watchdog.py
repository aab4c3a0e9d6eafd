"""What systemd's watchdog is told: daemons that stop getting anywhere are ended and started again. The lab's supervisor
plays systemd, the daemons are the real ones, in a network namespace of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.intent import IntentStore
from tests.lab.programs import forward, nexthopd
from tests.lab.space import PYTHON, ROOT

pytestmark = pytest.mark.lab

WATCHDOG = 4.0  # seconds; the image's units have 30
HANGS = """
import asyncio, sys
from pathlib import Path
from appliance import forwardd
from appliance.install import Installer

mark, looks = Path(sys.argv.pop(1)), {name: getattr(Installer, name) for name in ("install", "is_off")}

def hanging(name):
    async def look(self, *rest):
        while mark.exists():
            await asyncio.sleep(0.1)
        return await looks[name](self, *rest)
    return look

for name in looks:
    setattr(Installer, name, hanging(name))
forwardd.main()
"""


@dataclass
class Supervised:
    place: Path

    def status(self, unit: str) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found: dict[str, int] = json.loads((self.place / "status" / unit).read_text())
            return found
        return {"pid": 0, "starts": 0, "exit": 0, "ready": 0}

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            logs = "".join(path.read_text() for path in self.place.glob("log/*"))
            assert time.monotonic() < deadline, f"{sorted(self.place.rglob('*'))}\n{logs}"
            time.sleep(0.05)


@contextlib.contextmanager
def supervised(place: Path, units: dict[str, object]) -> Iterator[Supervised]:
    (place / "nexthop.toml").write_text(
        f'[paths]\nstate = "{place}/state"\nrun = "{place}/run"\n[api]\ngroup = "root"\n[cloud]\nprovider = "none"\n'
    )
    (place / "state").mkdir()
    with contextlib.closing(IntentStore(place / "state" / "nexthop.db")) as store:
        store.all()
    (place / "units.json").write_text(json.dumps({"units": units}))
    supervisor = [*PYTHON, "tests.lab.supervisor", str(place)]
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *supervisor], cwd=ROOT
    )
    try:
        yield Supervised(place)
    finally:
        process.terminate()
        process.wait(20)


def test_a_daemon_that_stands_still_is_ended_and_started_again(tmp_path: Path) -> None:
    units: dict[str, object] = {
        "nexthop-forward": {"argv": forward(tmp_path), "watchdog": WATCHDOG},
        "nexthopd": {"argv": nexthopd(tmp_path), "after": ["nexthop-forward"], "watchdog": WATCHDOG},
    }
    with supervised(tmp_path, units) as lab:
        lab.until(lambda: all(lab.status(unit)["ready"] for unit in units))
        stopped = {unit: lab.status(unit) for unit in units}
        for status in stopped.values():
            os.kill(status["pid"], signal.SIGSTOP)
        lab.until(lambda: all(lab.status(unit)["starts"] > stopped[unit]["starts"] for unit in units))
        assert {lab.status(unit)["exit"] for unit in units} == {-signal.SIGABRT}


def test_a_pass_that_hangs_starves_the_watchdog(tmp_path: Path) -> None:
    mark = tmp_path / "hang"
    program = (sys.executable, "-c", HANGS, str(mark))
    units: dict[str, object] = {"nexthop-forward": {"argv": forward(tmp_path, *program), "watchdog": WATCHDOG}}
    with supervised(tmp_path, units) as lab:
        lab.until(lambda: lab.status("nexthop-forward")["ready"])
        starts = lab.status("nexthop-forward")["starts"]
        mark.touch()  # its event loop turns on, and answers whoever connects
        lab.until(lambda: lab.status("nexthop-forward")["starts"] > starts)
        assert lab.status("nexthop-forward")["exit"] == -signal.SIGABRT
