"""Links as files: one TOML file per link is all there is to it.

Whoever supervises gtun (systemd, or the lab) runs one process per file. A file holds the link's private key, so it is
made with mode 0600 from its first byte, appears whole or not at all, and what it holds in secret never enters a `Link`,
a log line or an error.

What a link is doing is asked of its gtun, over the control socket, each time: it is never remembered.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance import linkcontrol, linkfile
from appliance.resolve import Address, Resolver
from appliance.status import LinkStatus
from appliance.tunnel import token as join_token

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

DEVICE_PREFIX: Final = "tun-"
_KEY_BYTES: Final = 32


class BadLinkName(ValueError):
    """Not a name as links have it."""


class LinkExists(Exception):
    """A link of that name is there already; nothing was changed."""


class LinkRefused(Exception):
    """The link does not take that; the message says why. Nothing was changed."""


class UnknownLink(KeyError):
    """There is no link of that name."""

    def __str__(self) -> str:
        return f"there is no link named {self.args[0]!r}"


@dataclass(frozen=True, slots=True)
class Link:
    """One tunnel. `server`: host:port, empty where the file cannot be read. Nothing here is secret."""

    name: str
    device: str
    server: str
    pin: str
    client: str


def check_name(name: str) -> str:
    """Return the name; raise `BadLinkName` where it will not do. A device name takes 15 bytes, four are ours."""
    if not join_token.NAME.fullmatch(name):
        raise BadLinkName(
            f"{name!r} will not do as a link's name: write a to z, 0 to 9 and -, at most 11, a letter first"
        )
    return name


class Links:
    """The links of this machine. `state_dir` and `run_dir` are the directories that hold ``links/``."""

    def __init__(self, state_dir: Path, run_dir: Path, *, clock: Callable[[], float] | None = None) -> None:
        self._files = state_dir / "links"
        self._seen = False  # whether there has ever been a directory
        self._sockets = run_dir / "links"
        self._callbacks: list[Callable[[], None]] = []
        self._resolver = Resolver(clock)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after a link came or went through this object."""
        self._callbacks.append(callback)

    def all(self) -> tuple[Link, ...]:
        """Return every link, by name. A file that cannot be understood still counts as one.

        Raises `OSError` where it is not known which links there are, also because their directory has vanished.
        """
        return tuple(self._read(name) for name in self._names())

    def devices(self) -> Mapping[str, str]:
        """Return each link's device, by its name, without a look into files that hold keys. Raises `OSError`."""
        return {name: DEVICE_PREFIX + name for name in self._names()}

    def _names(self) -> list[str]:
        try:
            names = sorted(path.stem for path in self._files.iterdir() if path.suffix == ".toml")
        except FileNotFoundError:
            # The first link makes the directory, and nobody removes it. What is gone is elsewhere, not empty.
            if self._seen or not self._files.parent.is_dir():
                raise
            return []
        self._seen = True
        return [name for name in names if join_token.NAME.fullmatch(name)]

    async def aims_at(self, token_text: str) -> frozenset[Address]:
        """Return the addresses of the server that a token is for, none where DNS has none. Raises `BadToken`."""
        return await self._resolver.resolve(_host(join_token.decode(token_text).server))

    def join(self, name: str, token_text: str) -> Link:
        """Make a link from a join token; its private key is made here.

        Raises `BadLinkName`, `appliance.tunnel.token.BadToken`, `LinkExists`, or `OSError` where the disk refuses.
        """
        check_name(name)
        token = join_token.decode(token_text)
        values = {"name": name, "device": DEVICE_PREFIX + name, **_credentials(token)}
        self._files.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._seen = True
        try:
            linkfile.write_new(self._path(name), linkfile.text("link", values))
        except FileExistsError:
            raise LinkExists(f"a link named {name!r} is there already: remove it first, or choose another") from None
        log.info("link %s joined: client %s of %s", name, token.client, token.server)
        self._changed()
        return self._read(name)

    async def renew(self, name: str) -> None:
        """Have a gtun that still runs by an earlier link of this name go by the present one."""
        await linkcontrol.reload(self._socket(name), self._path(name).read_text(encoding="utf-8"))

    async def rotate(self, name: str, token_text: str) -> Link:
        """Give a link another key, by a token of `gtund client rotate`; what else its file says stays.

        Its gtun tries that first: a token that the server refuses changes nothing. Where no gtun runs, the next one
        tries. Raises what `join` raises but for `LinkExists`, and `UnknownLink` or `LinkRefused`.
        """
        check_name(name)
        token = join_token.decode(token_text)
        path = self._path(name)
        try:
            before = path.read_text(encoding="utf-8")
            table = dict(tomllib.loads(before).get("link", {}))
        except FileNotFoundError:
            raise UnknownLink(name) from None
        except (ValueError, TypeError):
            table = {}
        if "key" not in table:
            raise LinkRefused(f"the file of link {name} holds no key: leave the link and join it anew")
        after = linkfile.text("link", {**table, **_credentials(token)})
        linkfile.replace(path, after)
        if refusal := await linkcontrol.reload(self._socket(name), after):
            linkfile.replace(path, before)
            raise LinkRefused(refusal)
        log.info("link %s has another key: client %s of %s", name, token.client, token.server)
        self._changed()
        return self._read(name)

    def rm(self, name: str) -> None:
        """Remove the link's file; its gtun is stopped by who runs it, its device by `forward`. Raises `UnknownLink`."""
        check_name(name)
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise UnknownLink(name) from None
        linkfile.sync_directory(self._files)
        log.info("link %s removed", name)
        self._changed()

    async def status(self, name: str) -> LinkStatus:
        """Ask the link's gtun, for at most a second; one that does not answer sensibly is "down", "not-running"."""
        return await linkcontrol.status(name, DEVICE_PREFIX + name, self._socket(name))

    async def statuses(self) -> tuple[LinkStatus, ...]:
        """Ask all of them at once."""
        return tuple(await asyncio.gather(*(self.status(link.name) for link in self.all())))

    async def servers(self) -> tuple[frozenset[Address], tuple[str, ...]]:
        """Return the addresses of the far ends, and the names that have none at the moment.

        A name's last answer holds where DNS has none (`appliance.resolve`).
        """
        hosts = {_host(link.server) for link in self.all() if link.server}
        found = dict(zip(hosts, await asyncio.gather(*(self._resolver.resolve(host) for host in hosts)), strict=True))
        unresolved = tuple(sorted(host for host, addresses in found.items() if not addresses))
        return frozenset().union(*found.values()), unresolved

    def _path(self, name: str) -> Path:
        return self._files / f"{name}.toml"

    def _socket(self, name: str) -> Path:
        return self._sockets / f"{name}.sock"

    def _read(self, name: str) -> Link:
        try:
            file = tomllib.loads(self._path(name).read_text(encoding="utf-8"))
            table = file.get("link") or file.get("client")  # the latter in a file of gtun 2.0.2
            texts = {key: value for key, value in (table or {}).items() if isinstance(value, str)}
        except (OSError, ValueError, AttributeError) as error:
            # the error's text may quote a line of the file
            log.warning("the file of link %s cannot be read: %s", name, type(error).__name__)
            texts = {}
        get = texts.get
        return Link(name, DEVICE_PREFIX + name, get("server", ""), get("pin", ""), get("client", ""))

    def _changed(self) -> None:
        for callback in self._callbacks:
            callback()


def _host(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")


def _credentials(token: join_token.JoinToken) -> dict[str, object]:
    """Return what a file holds of a token, with a key that is made here."""
    key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    return {"server": token.server, "pin": token.pin, "client": token.client, "key": key, "join": token.secret}
