"""The Unix socket of the API: 0660 root:nexthop from its first moment, and never taken from a living daemon.

uvicorn's own ``uds=`` makes the socket 0666, so we bind it. It is made under a temporary name with umask 0177, given
to its group, and only then renamed to where clients look: nobody ever meets a wider one, and a stale socket is
replaced without a gap. A lock on the directory, held while this happens, keeps two starting daemons apart.
Where systemd made the socket (nexthopd.socket), that one is taken instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_BACKLOG = 128
_LISTEN_FDS_START = 3  # SD_LISTEN_FDS_START


class SocketInUse(Exception):
    """Somebody listens there, or something that is no socket is in the way; the message says which."""


def bind(path: Path, group: str) -> socket.socket:
    """Listen at `path` for root and `group`; raise `SocketInUse`, or OSError with the path.

    Where the group does not exist, or we may not give the socket to it, only our own user gets in, with a warning.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(path.parent):
        _refuse_if_taken(path)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            umask = os.umask(0o177)
            try:
                listener.bind(str(fresh))
            finally:
                os.umask(umask)
            _admit(fresh, group)
            listener.listen(_BACKLOG)
            fresh.rename(path)
        except BaseException:
            listener.close()
            fresh.unlink(missing_ok=True)
            raise
    listener.setblocking(False)  # noqa: FBT003  (the socket's own signature)
    return listener


def inherited() -> socket.socket | None:
    """Return the listening Unix socket that systemd made for us (sd_listen_fds(3)), None where it made none.

    It belongs to root and its group, which a daemon without any privilege cannot arrange for itself.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return None
    for descriptor in range(_LISTEN_FDS_START, _LISTEN_FDS_START + int(count)):
        given = socket.socket(fileno=descriptor)
        if given.family == socket.AF_UNIX:
            given.setblocking(False)  # noqa: FBT003  (the socket's own signature)
            given.set_inheritable(False)
            return given
        given.detach()
    return None


def identity(path: Path) -> tuple[int, int]:
    """Return what tells this socket file from one that another daemon put in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino


def remove(path: Path, ours: tuple[int, int]) -> None:
    """Remove the socket file unless it is no longer the one that we made."""
    with contextlib.suppress(FileNotFoundError):
        if identity(path) == ours:
            path.unlink()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse_if_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketInUse(f"{path} is in the way and is no socket: move it, or set [paths] run in nexthop.toml")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003  (the socket's own signature)
        outcome = probe.connect_ex(str(path))
    if outcome not in (errno.ECONNREFUSED, errno.ENOENT):  # EAGAIN: it listens, and its backlog is full
        raise SocketInUse(f"another nexthopd listens on {path}: stop it first (systemctl stop nexthopd)")


def _admit(path: Path, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        log.warning("no group %s on this machine: only root may use the API (groupadd --system %s)", group, group)
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        log.warning("not allowed to give the API socket to group %s: only this user may use the API", group)
        return
    path.chmod(0o660)
