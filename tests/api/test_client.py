from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from api.client import Daemon, NoAnswer, NotRunning, Refused, segment

from .conftest import Appliance


def test_what_the_daemon_refuses_is_raised_with_its_document(appliance: Appliance) -> None:
    with pytest.raises(Refused) as caught:
        appliance.daemon.get("/v1/cidrs/nonsense")
    assert caught.value.code == "bad-cidr"
    assert caught.value.problem["reasons"]


def test_without_a_daemon_it_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(NotRunning) as nothing:
        Daemon(str(tmp_path / "s")).get("/livez")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(NotRunning) as stale:
        Daemon(str(tmp_path / "s")).get("/livez")
    for caught in (nothing, stale):
        assert "systemctl start nexthopd" in caught.value.problem["reasons"][0]["next_step"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail ready\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nabc",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_what_is_no_nexthopd_is_told_from_one(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoAnswer):
            Daemon(str(tmp_path / "s"), timeout=10).get("/livez")
        thread.join()


def test_nothing_in_a_name_becomes_another_part_of_the_path() -> None:
    assert segment("10.244.0.0/16") == "10.244.0.0/16"
    assert segment("2001:db8::/32") == "2001:db8::/32"
    assert segment("a?b#c d") == "a%3Fb%23c%20d"
    assert segment("x\r\nhost: y") == "x%0D%0Ahost:%20y"
