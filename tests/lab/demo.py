"""`./run demo`: two networks that do not know each other, joined before your eyes on this one machine.

    python -m tests.lab.demo            tell the story, take all down, exit 0 only if every step held
    python -m tests.lab.demo --keep     the same, but leave it up to look around
    python -m tests.lab.demo --down ID  take down what --keep left

Whatever ends the demo, it leaves nothing behind: SIGINT, SIGTERM and SIGHUP take the lab down first, and what SIGKILL
left is taken down by the next run. With --keep the story is told by a process of its own, which stays as the owner of
the lab, plays systemd's supervisor on, and ends with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NoReturn

from api.client import Failed as CallFailed
from tests.lab import ground, topology
from tests.lab.lab import Lab
from tests.lab.space import Failed
from tests.lab.story import Story, add_cidrs

if TYPE_CHECKING:
    from collections.abc import Callable
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WIDTH: Final = 62


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tell(lab: Lab) -> tuple[bool, list[tuple[str, str, bool]], Story]:
    """Go through the story; stop at the first step that does not hold."""
    story = Story(lab)
    steps = list(story.steps())
    table: list[tuple[str, str, bool]] = []
    for number, (name, check) in enumerate(steps, 1):
        sys.stdout.write(f"[{number:2}/{len(steps)}] {name} ".ljust(_WIDTH, ".") + " ")
        sys.stdout.flush()
        try:
            figure = check()
        except Exception as error:
            say("FAILED")
            say(f"\n{type(error).__name__}: {error}\n\n{lab.logs(40)}\n")
            table.append((name, f"FAILED: {type(error).__name__}", False))
            return False, table, story
        say(figure)
        table.append((name, figure, True))
    return True, table, story


def show(table: list[tuple[str, str, bool]], story: Story) -> None:
    """Print what was checked, the cloud's route table and the appliance's status as they were in the middle."""
    wide = max(len(name) for name, _, _ in table)
    say(f"\n{'what was checked'.ljust(wide)}  figure")
    say(f"{'-' * wide}  {'-' * 40}")
    for name, figure, _ in table:
        say(f"{name.ljust(wide)}  {figure}")
    if story.table:
        say("\nthe VPC's route table, as the cloud's API listed it while both CIDRs were in\n")
        columns = ("destination", "next_hop", "type", "status", "name")
        rows = [columns, *(tuple(entry[column] for column in columns) for entry in story.table)]
        widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
        for row in rows:
            say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if story.status:
        say("\nnexthop status, at the same time\n")
        say("\n".join(f"  {line}" for line in story.status.splitlines()))


def run(*, keep: bool = False, ready: int | None = None) -> int:
    """Build, tell, show; return the exit status. With `keep`, stay until a signal says otherwise."""
    begin = time.monotonic()
    with Lab.open() as lab:
        built = time.monotonic() - begin
        say(f"lab {lab.id}: {len(lab.spaces)} machines, network namespaces nh{lab.id}-*, built in {built:.1f} s\n")
        held, table, story = tell(lab)
        if held and keep:
            _enliven(lab)
        show(table, story)
        verdict = f"all {len(table)} held" if held else f"step {len(table)} did not hold"
        say(f"\n{verdict}, {time.monotonic() - begin:.0f} s")
        if keep:
            _look_around(lab)
            _stay(lab, ready, 0 if held else 1)
    return 0 if held else 1


def _enliven(lab: Lab) -> None:
    """See to it that there is something to see: both CIDRs, a probe through the tunnel, traffic."""
    add_cidrs(lab)
    pods = {"comment": "pods", "probe": f"tcp:{topology.PODS['pod1']}:80"}
    lab.api("PATCH", f"/v1/cidrs/{topology.POD_CIDR}", pods)
    lab.api("PATCH", f"/v1/cidrs/{topology.SERVICE_CIDR}", {"comment": "services"})
    lab.start_visitor()


def _console(lab: Lab) -> str:
    """Return where the console is and a token for it, or that there is none: a step may have failed at the daemon."""
    try:
        token = lab.token("console", "write")
    except CallFailed as failed:
        return f"none: {failed}"
    return f"{lab.open_console(8443)}\n  token: {token}"


def _look_around(lab: Lab) -> None:
    """Say where to look."""
    inside = f"ip netns exec nh{lab.id}"
    say(f"""
It is still up, with both CIDRs in. Look around:
  {inside}-host1 ping {topology.PODS["pod1"]}
  {inside}-host1 curl http://{topology.SERVICE}/
  {inside}-vrouter ip route show table 1000      # the VPC's route table, as the virtual router has it
  {inside}-appliance {lab.place("appliance")}/nexthop status
  {inside}-appliance tcpdump -ni tun-hk
  ls {lab.directory}/log {lab.place("appliance")}/log
The console, with live traffic (its certificate is the lab's own, so the browser asks once):
  {_console(lab)}
Take it down:
  ./run demo --down {lab.id}""")


def _stay(lab: Lab, ready: int | None, status: int) -> NoReturn:
    """Tell who started us that the story is over, and own the lab until a signal ends us."""
    log = os.open(lab.directory / "log" / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    if ready is not None:
        os.write(ready, bytes([status]))
        os.close(ready)
    while True:
        signal.pause()


def keep_up() -> int:
    """Tell the story in a process of its own, and return when it has been told."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        os.setsid()
        status = guarded(lambda: run(keep=True, ready=send))
        os.write(send, bytes([status]))
        os._exit(status)
    os.close(send)
    for number in _ENDING:
        signal.signal(number, lambda caught, _frame: os.kill(child, caught))
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read(1)
    return told[0] if told else 1


def down(lab: str) -> int:
    """Take a lab down, through its owner if that one lives."""
    if lab not in ground.labs():
        sys.stderr.write(f"there is no lab {lab!r} here; up: {' '.join(ground.labs()) or 'none'}\n")
        return 1
    who = ground.owner(lab)
    if who and who.alive:
        os.kill(who.pid, signal.SIGTERM)
        if not _gone(who, seconds=40):
            os.kill(who.pid, signal.SIGKILL)
    ground.release(lab)
    return 0


def _gone(who: ground.Owner, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while who.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def guarded(work: Callable[[], int]) -> int:
    """Do the work and leave no lab of ours, whatever signal comes when; only the first one counts."""
    ground.interrupt_on(*_ENDING)
    status = 1
    try:
        try:
            status = work()
        finally:
            ground.release_own()
    except ground.Interrupted as interrupted:
        ground.release_own()  # it may have come in the middle of the first
        status = 128 + interrupted.number
        sys.stderr.write(f"\n{interrupted}: all taken down\n")
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
    return status


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run demo", description="Join two networks before your eyes.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--keep", action="store_true", help="leave it up, and print how to look around")
    choice.add_argument("--down", metavar="ID", help="take down what --keep left up")
    options = parser.parse_args()
    if options.down:
        return down(options.down)
    return keep_up() if options.keep else guarded(run)


if __name__ == "__main__":
    sys.exit(main())
