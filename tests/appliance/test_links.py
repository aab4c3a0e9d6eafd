from __future__ import annotations

import asyncio
import base64
import logging
import socket
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from appliance.links import BadLinkName, LinkExists, LinkRefused, Links, UnknownLink
from appliance.tunnel import report
from appliance.tunnel.token import BadToken, JoinToken, encode
from tests.appliance.fakes import make_links

TOKEN = encode(JoinToken("203.0.113.10", 9443, "PIN=", "sz", "U0VDUkVU"))


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nx") as name:  # a socket's path takes 108 bytes
        yield Path(name)


@pytest.fixture
def links(root: Path) -> Links:
    return Links(root / "state", root / "run")


def test_joining_writes_a_private_file_with_a_key_of_its_own(links: Links, root: Path) -> None:
    calls: list[None] = []
    links.on_change(lambda: calls.append(None))
    link = links.join("hk", TOKEN + "\n")
    path = root / "state/links/hk.toml"
    written = tomllib.loads(path.read_text())["link"]
    key = written.pop("key")
    assert len(base64.b64decode(key, validate=True)) == 32
    assert written == {
        "name": "hk",
        "device": "tun-hk",
        "server": "203.0.113.10:9443",
        "pin": "PIN=",
        "client": "sz",
        "join": "U0VDUkVU",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750  # nexthop-forward may see which links there are
    assert [each.name for each in path.parent.iterdir()] == ["hk.toml"]
    assert (link.device, link.server, link.client) == ("tun-hk", "203.0.113.10:9443", "sz")
    assert links.all() == (link,)
    assert calls == [None]
    links.join("sg", TOKEN)
    assert tomllib.loads((root / "state/links/sg.toml").read_text())["link"]["key"] != key


def test_a_directory_of_links_that_vanished_is_not_taken_for_an_empty_one(links: Links, root: Path) -> None:
    """Whoever believed it would delete every tunnel's device."""
    links.join("hk", TOKEN)
    (root / "state").rename(root / "away")
    for mounted in (False, True):
        if mounted:
            (root / "state").mkdir()  # where a volume was mounted there is an empty directory
        for ask in (links.all, links.devices):
            with pytest.raises(OSError, match="links"):
                ask()
    (root / "state").rmdir()
    (root / "away").rename(root / "state")
    assert links.devices() == {"hk": "tun-hk"}


def test_a_machine_that_never_had_a_link_has_none(links: Links, root: Path) -> None:
    with pytest.raises(OSError, match="state"):
        links.devices()  # not even the place for them is there
    (root / "state").mkdir()
    assert links.devices() == {}
    links.join("hk", TOKEN)
    links.rm("hk")
    assert links.devices() == {}


def test_neither_token_nor_key_is_ever_said(links: Links, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    link = links.join("hk", TOKEN)
    key = tomllib.loads((root / "state/links/hk.toml").read_text())["link"]["key"]
    with pytest.raises(LinkExists) as exists:
        links.join("hk", TOKEN)
    with pytest.raises(BadToken) as bad:
        links.join("sg", TOKEN[:-1])
    (root / "state/links/hk.toml").write_text(f'[link]\nkey = "{key}')
    links.all()
    said = caplog.text + repr(link) + str(exists.value) + repr(exists.value) + str(bad.value)
    assert not any(secret in said for secret in (key, "U0VDUkVU", TOKEN[:-1]))


def test_a_second_link_of_that_name_is_refused_and_the_first_stays(links: Links, root: Path) -> None:
    links.join("hk", TOKEN)
    before = (root / "state/links/hk.toml").read_text()
    with pytest.raises(LinkExists):
        links.join("hk", TOKEN)
    assert (root / "state/links/hk.toml").read_text() == before
    assert [each.name for each in (root / "state/links").iterdir()] == ["hk.toml"]


@pytest.mark.parametrize("name", ["", "HK", "1hk", "-hk", "h/k", "..", "twelve-chars", "hk.", "hk\n", "hk "])
def test_a_bad_name_is_refused(links: Links, root: Path, name: str) -> None:
    with pytest.raises(BadLinkName):
        links.join(name, TOKEN)
    with pytest.raises(BadLinkName):
        links.rm(name)
    assert not (root / "state").exists()


def test_removing_a_link_removes_its_file(links: Links, root: Path) -> None:
    links.join("hk", TOKEN)
    calls: list[None] = []
    links.on_change(lambda: calls.append(None))
    links.rm("hk")
    assert links.all() == ()
    assert calls == [None]
    with pytest.raises(UnknownLink, match="hk"):
        links.rm("hk")


def test_a_file_that_cannot_be_understood_is_still_a_link(links: Links, root: Path) -> None:
    make_links(root / "state", ["hk"])
    (root / "state/links/sg.toml").write_text("[link")
    (root / "state/links/tk.toml").write_text("link = 3")
    (root / "state/links/.hk.toml.123").write_text("a draft")
    (root / "state/links/BAD.toml").write_text("")
    assert [(link.name, link.server) for link in links.all()] == [("hk", "203.0.113.10:9443"), ("sg", ""), ("tk", "")]


def test_the_server_in_a_file_of_gtun_2_0_2_is_seen(links: Links, root: Path) -> None:
    """The guard has to know it: a CIDR that contains it would cut the tunnel off."""
    make_links(root / "state", [])
    (root / "state/links/old.toml").write_text('[client]\nserver = "203.0.113.20:9092"\nauth_key = "SECRET"\n')
    assert [link.server for link in links.all()] == ["203.0.113.20:9092"]
    assert "SECRET" not in repr(links.all())


@pytest.mark.parametrize("error", ["", "the server refuses the token"])
def test_a_running_gtun_is_told_the_new_file_and_may_refuse_it(root: Path, error: str) -> None:
    """Told, since what it reads may be a copy from when it began."""
    heard: list[bytes] = []

    async def reload(text: bytes) -> report.Report:
        heard.append(text)
        return {"error": error} if error else {"reloaded": "hk"}

    async def scenario() -> None:
        links = Links(root / "state", root / "run")
        links.join("hk", TOKEN)
        path = root / "state/links/hk.toml"
        before = path.read_bytes()
        async with report.serve(root / "run/links/hk.sock", dict, {"reload": reload}):
            await links.renew("hk")
            if error:
                with pytest.raises(LinkRefused, match=error):
                    await links.rotate("hk", TOKEN)
                assert path.read_bytes() == before
            else:
                await links.rotate("hk", TOKEN)
                assert path.read_bytes() == heard[1] != before
        assert heard[0] == before

    asyncio.run(scenario())


def test_no_socket_is_a_gtun_that_does_not_run(links: Links, root: Path) -> None:
    make_links(root / "state", ["hk"])
    (found,) = asyncio.run(links.statuses())
    assert (found.name, found.device, found.state, found.code) == ("hk", "tun-hk", "down", "not-running")


def test_servers_are_resolved_once_a_minute_and_the_last_answer_holds(
    links: Links, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_links(root / "state", ["hk"])
    directory = root / "state/links"
    (directory / "sg.toml").write_text('[link]\nserver = "gw.example.net:9443"\n')
    (directory / "six.toml").write_text('[link]\nserver = "[2001:db8::1]:9443"\n')
    now, asked = 0.0, []
    answers: list[list[str] | OSError] = [["198.51.100.7", "2001:db8::7"], OSError("no DNS"), ["198.51.100.8"]]

    def lookup(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [(0, 0, 0, "", (address, 0)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    links = Links(root / "state", root / "run", clock=lambda: now)
    nobody: tuple[str, ...] = ()
    fixed = {ip_address("203.0.113.10"), ip_address("2001:db8::1")}

    async def scenario() -> None:
        nonlocal now
        first = {*fixed, ip_address("198.51.100.7"), ip_address("2001:db8::7")}
        assert await links.servers() == (frozenset(first), nobody)
        assert await links.servers() == (frozenset(first), nobody)
        assert asked == ["gw.example.net"]
        now = 61.0
        assert await links.servers() == (frozenset(first), nobody)  # DNS fails: what was known holds
        assert await links.servers() == (frozenset({*fixed, ip_address("198.51.100.8")}), nobody)

    asyncio.run(scenario())


def test_a_server_that_has_no_address_is_told(links: Links, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "state/links").mkdir(parents=True)
    (root / "state/links/sg.toml").write_text('[link]\nserver = "a..b:9443"\n')
    assert asyncio.run(links.servers()) == (frozenset(), ("a..b",))
