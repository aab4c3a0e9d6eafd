"""One machine of the lab: a network namespace, and how a program gets into it.

Programs enter by `nsenter --net` and not by `ip netns exec`, which mounts a /sys of its own. What is started to stay
leads its own session, so that a Ctrl-C meant for the demo does not reach it, and dies with the process that started
it (PR_SET_PDEATHSIG), so that a demo killed with SIGKILL leaves little behind. That signal is tied to the *thread*
which starts the program: start from the main thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = (sys.executable, "-m")
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Space:
    """A machine of the lab: `name` as in the drawing, `full` as in /run/netns, `logs` where its programs write."""

    name: str
    full: str
    logs: Path

    def run(
        self, *argv: str, stdin: str = "", timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it said; raise `Failed` on an exit status that is not 0."""
        done = subprocess.run(
            [*self._enter(), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=ROOT,
            env=environment(),
        )
        if check and done.returncode:
            raise Failed(
                f"{self.name}: {' '.join(argv)} exited with {done.returncode}\n{done.stdout}{done.stderr}".strip()
            )
        return done

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script with /bin/sh and return its standard output."""
        return self.run("sh", "-eu", "-c", script, check=check).stdout

    def start(
        self, label: str, *argv: str, stdout: int | None = None, hand: tuple[int, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start a program that stays; what it prints goes to LOGS/LABEL.log, or to a pipe where `stdout` says so.

        It is handed the open descriptors `hand` beside, under the same numbers.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{label}.log").open("a") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._enter(), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                text=True,
                start_new_session=True,
                pass_fds=hand,
                cwd=ROOT,
                env=environment(),
            )

    def _enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{self.full}", "--")


class Failed(AssertionError):
    """A program in the lab did not do what the lab needs of it; the message holds what it printed."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what programs in the lab are given: English output, this clone's modules, no proxy and no cloud keys."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    basic = {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/root"), "PYTHONPATH": str(ROOT)}
    return {**basic, "PYTHONUNBUFFERED": "1", **(extra or {})}
