"""Links as files: one TOML file per link is all there is to it.

Whoever supervises gtun (systemd, or the lab) runs one process per file. A file holds the link's private key, so it is
made with mode 0600 from its first byte, appears whole or not at all, and what it holds in secret never enters a `Link`,
a log line or an error.

What a link is doing is asked of its gtun, over the control socket, each time: it is never remembered.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import threading
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from appliance import linkfile
from appliance.status import LinkStatus
from appliance.tunnel import token as join_token

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

DEVICE_PREFIX: Final = "tun-"
_ANSWER_SECONDS: Final = 1.0
_RELOAD_SECONDS: Final = 15.0
_ANSWER_BYTES: Final = 64 * 1024
_RESOLVE_SECONDS: Final = 2.0
_RESOLVED_FOR: Final = 60.0  # seconds; a server that moves is found again, and a pass rarely waits for DNS
_KEY_BYTES: Final = 32
_STATES: Final = ("up", "connecting", "down")  # no set: what is asked for may be unhashable

Address = IPv4Address | IPv6Address


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
        self._sockets = run_dir / "links"
        self._clock = clock
        self._callbacks: list[Callable[[], None]] = []
        self._resolved: dict[str, tuple[float, frozenset[Address]]] = {}

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after a link came or went through this object."""
        self._callbacks.append(callback)

    def all(self) -> tuple[Link, ...]:
        """Return every link, by name. A file that cannot be understood still counts as one. Raises `OSError`."""
        return tuple(self._read(name) for name in self._names())

    def devices(self) -> Mapping[str, str]:
        """Return each link's device, by its name, without a look into files that hold keys. Raises `OSError`."""
        return {name: DEVICE_PREFIX + name for name in self._names()}

    def _names(self) -> list[str]:
        try:
            names = sorted(path.stem for path in self._files.iterdir() if path.suffix == ".toml")
        except FileNotFoundError:
            return []
        return [name for name in names if join_token.NAME.fullmatch(name)]

    def join(self, name: str, token_text: str) -> Link:
        """Make a link from a join token; its private key is made here.

        Raises `BadLinkName`, `appliance.tunnel.token.BadToken`, `LinkExists`, or `OSError` where the disk refuses.
        """
        check_name(name)
        token = join_token.decode(token_text)
        values = {"name": name, "device": DEVICE_PREFIX + name, **_credentials(token)}
        self._files.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            linkfile.write_new(self._path(name), linkfile.text("link", values))
        except FileExistsError:
            raise LinkExists(f"a link named {name!r} is there already: remove it first, or choose another") from None
        log.info("link %s joined: client %s of %s", name, token.client, token.server)
        self._changed()
        return self._read(name)

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
        linkfile.replace(path, linkfile.text("link", {**table, **_credentials(token)}))
        if refusal := await self._reload(name):
            linkfile.replace(path, before)
            raise LinkRefused(refusal)
        log.info("link %s has another key: client %s of %s", name, token.client, token.server)
        self._changed()
        return self._read(name)

    async def _reload(self, name: str) -> str:
        """Have the link's gtun read its file again; return why it does not take it, "" if it does or does not run."""
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                answer = json.loads(await _ask(self._sockets / f"{name}.sock", "reload"))
        except TimeoutError:
            return "its gtun does not answer"
        except (OSError, ValueError):
            return ""
        return str(answer.get("error", "")) if isinstance(answer, dict) else ""

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
        path = self._sockets / f"{name}.sock"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await _ask(path)
        except TimeoutError:
            return _silent(name, "its gtun runs, and does not answer")
        except OSError as error:
            return _silent(name, f"no gtun answers: {error.strerror or error}")
        try:
            return _status(name, json.loads(answer))
        except (ValueError, RecursionError):
            return _silent(name, f"what answers on {path} is no gtun that we understand")

    async def statuses(self) -> tuple[LinkStatus, ...]:
        """Ask all of them at once."""
        return tuple(await asyncio.gather(*(self.status(link.name) for link in self.all())))

    async def servers(self) -> tuple[frozenset[Address], tuple[str, ...]]:
        """Return the addresses of the far ends, and the names that have none at the moment.

        Names are resolved outside of the event loop, for at most two seconds; the last answer holds where DNS has none.
        """
        hosts = {_host(link.server) for link in self.all() if link.server}
        found = dict(zip(hosts, await asyncio.gather(*(self._resolve(host) for host in hosts)), strict=True))
        unresolved = tuple(sorted(host for host, addresses in found.items() if not addresses))
        return frozenset().union(*found.values()), unresolved

    async def _resolve(self, host: str) -> frozenset[Address]:
        try:
            return frozenset({ip_address(host)})
        except ValueError:
            pass
        now = self._clock() if self._clock else asyncio.get_running_loop().time()
        at, known = self._resolved.get(host, (None, frozenset[Address]()))
        if at is not None and now - at < _RESOLVED_FOR:
            return known
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                known = await _lookup(host)
        except (OSError, TimeoutError) as error:
            log.warning("cannot resolve the tunnel server %s: %s", host, str(error) or "no answer")
            return known
        self._resolved[host] = (now, known)
        return known

    def _path(self, name: str) -> Path:
        return self._files / f"{name}.toml"

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


def _silent(name: str, reason: str) -> LinkStatus:
    return LinkStatus(name, DEVICE_PREFIX + name, "down", "not-running", reason)


def _credentials(token: join_token.JoinToken) -> dict[str, object]:
    """Return what a file holds of a token, with a key that is made here."""
    key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    return {"server": token.server, "pin": token.pin, "client": token.client, "key": key, "join": token.secret}


async def _ask(path: Path, command: str = "") -> bytes:
    """Read a control socket to its end, or to more than any gtun says; without a command it tells the state."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(command.encode())
        writer.write_eof()
        answer = b""
        while len(answer) <= _ANSWER_BYTES and (more := await reader.read(_ANSWER_BYTES)):
            answer += more
        return answer
    finally:
        writer.close()


def _status(name: str, answer: object) -> LinkStatus:
    """Take from the answer what has the right type; raise `ValueError` where even the state is missing."""
    if not isinstance(answer, dict) or answer.get("state") not in _STATES:
        raise ValueError("not a gtun's answer")

    def text(key: str) -> str:
        value = answer.get(key)
        return value if isinstance(value, str) else ""

    def number(key: str) -> float | None:
        value = answer.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    counters, pid, unit_bytes = (answer.get(key) for key in ("counters", "pid", "unit_bytes"))
    return LinkStatus(
        name=name,
        device=DEVICE_PREFIX + name,
        state=str(answer["state"]),
        code=text("code"),
        reason=text("reason"),
        server=text("server"),
        address=text("address"),
        peer=text("peer"),
        pid=pid if isinstance(pid, int) else None,
        since=number("since"),
        retry_at=number("retry_at"),
        rtt_ms=number("rtt_ms"),
        channel=text("channel"),
        loss=number("loss"),
        unit_bytes=unit_bytes if isinstance(unit_bytes, int) else None,
        counters={str(key): value for key, value in counters.items() if isinstance(value, int)}
        if isinstance(counters, dict)
        else {},
    )


def _host(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")


async def _lookup(host: str) -> frozenset[Address]:
    """Resolve in a thread that nobody waits for: the loop's own pool would hold up the exit while DNS is silent."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[frozenset[Address]] = loop.create_future()

    def settle(result: frozenset[Address] | OSError) -> None:
        if answer.done():
            return
        if isinstance(result, OSError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def work() -> None:
        result: frozenset[Address] | OSError
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            result = frozenset(ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found)
        except OSError as error:
            result = error
        except ValueError as error:  # a name that cannot be one, such as an empty label
            result = OSError(str(error))
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()
    return await answer
