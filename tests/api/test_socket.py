"""The socket is 0660 root:nexthop from its first moment, and never taken from a living daemon."""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from api.socket import SocketInUse, bind, identity, remove

from .conftest import ROOT, Appliance, command

OWN = grp.getgrgid(os.getegid()).gr_name
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def test_it_is_for_root_and_the_group(tmp_path: Path) -> None:
    path = tmp_path / "run" / "nexthopd.sock"
    with bind(path, OWN):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert found.st_gid == grp.getgrnam(OWN).gr_gid
        assert [each.name for each in path.parent.iterdir()] == ["nexthopd.sock"]


def test_it_is_never_wider_than_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.chown

    def looking(path: Path, uid: int, gid: int) -> None:
        seen.append(stat.S_IMODE(Path(path).stat().st_mode))
        real(path, uid, gid)

    monkeypatch.setattr("os.chown", looking)
    umask = os.umask(0)
    try:
        bind(tmp_path / "s", OWN).close()
    finally:
        os.umask(umask)
    assert seen == [0o600]


def test_without_the_group_only_the_own_user_gets_in_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), bind(tmp_path / "s", "no-such-group"):
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert "groupadd --system no-such-group" in caplog.text


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    bind(tmp_path / "s", OWN).close()
    assert (tmp_path / "s").exists()
    with bind(tmp_path / "s", OWN), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))


def test_a_living_one_is_not(tmp_path: Path) -> None:
    with bind(tmp_path / "s", OWN), pytest.raises(SocketInUse, match="another nexthopd"):
        bind(tmp_path / "s", OWN)
    assert [each.name for each in tmp_path.iterdir()] == ["s"]


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(SocketInUse, match="in the way"):
        bind(tmp_path / "s", OWN)
    assert (tmp_path / "s").read_text() == "precious"


def test_only_the_own_socket_is_removed(tmp_path: Path) -> None:
    with bind(tmp_path / "s", OWN):
        ours = identity(tmp_path / "s")
    with bind(tmp_path / "s", OWN):
        remove(tmp_path / "s", (ours[0], ours[1] + 10**6))
        assert (tmp_path / "s").exists()
        remove(tmp_path / "s", identity(tmp_path / "s"))
        assert not (tmp_path / "s").exists()
        remove(tmp_path / "s", ours)


@as_root
def test_another_uid_is_refused_by_the_kernel(appliance: Appliance) -> None:
    for directory in appliance.socket.parents:  # it must be the socket that refuses, not a directory above it
        if os.geteuid() == directory.stat().st_uid:
            directory.chmod(directory.stat().st_mode | 0o755)
    code = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "os.stat(sys.argv[1])\n"
        "sys.exit(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(appliance.socket)], timeout=30, check=False)
    assert done.returncode == errno.EACCES


@as_root
def test_the_command_tells_a_stranger_how_to_get_in(appliance: Appliance) -> None:
    for directory in appliance.socket.parents:
        if os.geteuid() == directory.stat().st_uid:
            directory.chmod(directory.stat().st_mode | 0o755)
    code = (
        "import os, sys\n"
        "from api.client import Daemon, NotAllowed\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    Daemon(sys.argv[1]).get('/livez')\n"
        "except NotAllowed as error:\n    print(error.problem['reasons'][0]['next_step'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(appliance.socket)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "usermod -aG nexthop" in done.stdout
    assert command(appliance.socket)("cidr", "ls").returncode == 0
