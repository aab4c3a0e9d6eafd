from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance.notify import Watchdog, notify, period


def test_systemd_is_told_where_it_wants_to_hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notify("READY=1")  # nobody listens: nothing happens
    for address, bound in ((str(tmp_path / "n"), str(tmp_path / "n")), (f"@nexthop-{os.getpid()}",) * 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind("\0" + bound[1:] if bound.startswith("@") else bound)
            receiver.settimeout(10)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            notify("READY=1")
            assert receiver.recv(64) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")  # systemd is gone: no reason to fall over


def test_a_watchdog_is_fed_by_progress_and_not_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        monkeypatch.setenv("WATCHDOG_USEC", "8000000")
        now = 100.0
        watchdog = Watchdog(lambda: now)
        monkeypatch.setattr("appliance.notify._told", set())
        watchdog.progressed()  # it starts still, and may take longer than the watchdog allows later
        with pytest.raises(BlockingIOError):
            receiver.recv(64)
        notify("READY=1")
        assert receiver.recv(64) == b"READY=1"
        for second in (0.0, 0.5, 1.9):
            now = 100.0 + second
            watchdog.progressed()
        assert receiver.recv(64) == b"WATCHDOG=1"
        with pytest.raises(BlockingIOError):
            receiver.recv(64)
        now = 102.0
        watchdog.progressed()
        assert receiver.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"), [("", "", 0), ("30000000", "", 30), ("30000000", "1", 0), ("soon", "", 0)]
)
def test_nobody_watches_unless_it_is_said_to_us(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert period() == seconds
