"""The piece of this machine that one lab stands on: its id, its namespaces, its directory, and their end.

What a lab owns can be read off the machine, so that anyone can take it down, whether or not its maker still lives:

    /run/nexthop-lab/ID/owner.json     who made it: process id, the second that process started, the boot
    /run/nexthop-lab/ID/...            everything that its programs write
    /run/netns/nhID-NAME               its network namespaces

`release` removes all that by looking, never from memory: the same function ends a lab that was half built, one that is
done, and one whose owner was killed with SIGKILL. The owner counts as dead only if no process has its id *and* start
time. Nothing is ever made in the root namespace; a cable's two ends are born where they belong.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyroute2 import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

RUN: Final = Path("/run/nexthop-lab")
NETNS: Final = Path("/run/netns")
XTABLES_LOCK: Final = Path("/run/xtables.lock")
_MNT_DETACH: Final = 2  # umount2(2)
_LOCK: Final = RUN / ".lock"
_BEFORE: Final = RUN / ".before.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so that another one which got the same number is not taken for it."""

    pid: int
    start: int
    boot: str

    @classmethod
    def this_process(cls) -> Owner:
        """Return the record of the calling process."""
        return cls(os.getpid(), _start_time(os.getpid()) or 0, _boot_id())

    @property
    def alive(self) -> bool:
        """Tell whether that very process still runs."""
        return self.boot == _boot_id() and _start_time(self.pid) == self.start


def claim() -> str:
    """Take down what dead owners left, then make the directory of a new lab, owned by this process; return its id."""
    reap_dead()
    with undisturbed(), _locked():
        _remember_before()
        while True:
            lab = secrets.token_hex(2)
            try:
                (RUN / lab).mkdir(mode=0o711)
            except FileExistsError:
                continue
            (RUN / lab / "owner.json").write_text(json.dumps(asdict(Owner.this_process())))
            return lab


def create(lab: str, name: str) -> str:
    """Make the namespace `name` of a lab and return its full name. Call it before starting threads: it forks."""
    full = f"nh{lab}-{name}"
    with undisturbed(), _locked():
        netns.create(full)
    return full


def owner(lab: str) -> Owner | None:
    """Return who made a lab, None where that cannot be read (it died while making it)."""
    try:
        return Owner(**json.loads((RUN / lab / "owner.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def labs() -> tuple[str, ...]:
    """Return the ids of all labs on this machine, living or dead.

    A lab's directory is there before its first namespace and goes after its last: nothing is ours by its name alone.
    """
    return tuple(sorted(entry.name for entry in RUN.iterdir() if entry.is_dir())) if RUN.is_dir() else ()


def reap_dead() -> tuple[str, ...]:
    """Take down every lab whose owner is dead, and say which."""
    dead = []
    for lab in labs():
        with _locked():  # who is just claiming holds the lock until its owner file is written
            who = owner(lab)
        if who is None or not who.alive:
            release(lab)
            dead.append(lab)
    return tuple(dead)


def release(lab: str) -> None:
    """End every process in the lab's namespaces, then the namespaces, then its directory. May be repeated."""
    with undisturbed():
        _release(lab)


def release_own() -> None:
    """Take down every lab of this process: the last word, after whatever a signal interrupted."""
    me = Owner.this_process()
    for lab in labs():
        if owner(lab) == me:
            release(lab)


class Interrupted(KeyboardInterrupt):
    """A signal asked us to end; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def interrupt_on(*numbers: signal.Signals) -> None:
    """Make these signals raise `Interrupted` in the main thread: once, so that nothing disturbs taking down after it.

    pyroute2 works in forked children and ends them with SIGTERM. There the exception would run our own clean-up.
    """
    process = os.getpid()
    caught: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:
            os._exit(128 + number)
        caught.append(number)
        if len(caught) == 1:
            raise Interrupted(number)

    for number in numbers:
        signal.signal(number, interrupt)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back the signals that ask us to end, for a step that must not stop half way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _release(lab: str) -> None:
    spaces = tuple(NETNS.glob(f"nh{lab}-*"))
    _kill_inside(spaces)
    with _locked():
        for space in spaces:
            with contextlib.suppress(FileNotFoundError):
                netns.remove(space.name)
        shutil.rmtree(RUN / lab, ignore_errors=True)
        if not labs():
            _restore_before()


def inside(space: Path) -> tuple[int, ...]:
    """Return the processes whose network namespace is `space`."""
    with contextlib.suppress(FileNotFoundError):
        wanted = _identity(space)
        return tuple(int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _namespace_of(entry) == wanted)
    return ()


def _kill_inside(spaces: tuple[Path, ...]) -> None:
    deadline = time.monotonic() + 20
    while found := [(space, pid) for space in spaces for pid in inside(space)]:
        for space, pid in found:
            # The descriptor pins the process, so that the second look and the signal concern the same one.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                descriptor = os.pidfd_open(pid)
                try:
                    if _namespace_of(Path("/proc", str(pid))) == _identity(space):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
        if time.monotonic() > deadline:
            raise TimeoutError(f"these processes do not end: {found}")
        time.sleep(0.02)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _namespace_of(process: Path) -> tuple[int, int] | None:
    try:
        return _identity(process / "ns" / "net")
    except OSError:
        return None


def running(pid: int) -> bool:
    """Tell whether there is such a process; one that only waits to be reaped by its parent is none."""
    return _start_time(pid) is not None


def _start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot (proc(5), field 22), None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Hold the machine-wide lock of all labs. The last lab removes the file, so a lock on a removed file is no lock."""
    while True:
        RUN.mkdir(mode=0o755, exist_ok=True)
        try:
            descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                current = _LOCK.stat()
            except FileNotFoundError:
                continue
            if os.path.samestat(os.fstat(descriptor), current):
                yield
                _leave_no_lock()
                return
        finally:
            os.close(descriptor)


def _leave_no_lock() -> None:
    """Remove the directory of all labs, while the lock is still held, if no lab is in it."""
    if not any(entry.is_dir() for entry in RUN.iterdir()) and not _BEFORE.exists():
        _LOCK.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            RUN.rmdir()


def _remember_before() -> None:
    """Note what the first lab found, for the last one to restore: both come into being as a by-product of our work."""
    if not _BEFORE.exists():
        before = {"netns": NETNS.exists(), "mount": _mounted(NETNS), "xtables": XTABLES_LOCK.exists()}
        _BEFORE.write_text(json.dumps(before))


def _mounted(path: Path) -> bool:
    """Tell whether something is mounted on `path`; os.path.ismount() does not see a directory bound to itself."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(path) for line in lines)


def _restore_before() -> None:
    try:
        before = json.loads(_BEFORE.read_text())
    except (OSError, ValueError):
        return
    if NETNS.is_dir() and not any(NETNS.iterdir()):  # somebody else's namespaces keep it as it is
        if not before["mount"] and _mounted(NETNS):
            ctypes.CDLL(None).umount2(str(NETNS).encode(), _MNT_DETACH)  # umount(8) would leave a /run/mount
        if not before["netns"]:
            with contextlib.suppress(OSError):
                NETNS.rmdir()
    if not before["xtables"]:
        XTABLES_LOCK.unlink(missing_ok=True)
    _BEFORE.unlink()
