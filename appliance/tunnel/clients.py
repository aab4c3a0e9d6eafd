"""Whom gtund lets in: one small file per client, which is also its lease.

A client keeps its address for as long as it is registered, so connections through it survive any restart. Of a key and
of a join secret only the SHA-256 is kept. Files are read anew each time: `gtund client rm` needs no running gtund. Who
changes one holds the directory's lock. A file that cannot be understood costs its client, not the others: it is let in
no more, but its session, its device and its lease stay until somebody restores or removes the file.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from .identity import write_private
from .token import NAME

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

JOIN_SECRET: Final = 32
JOIN_VALID: Final = 24 * 3600.0
"""Seconds in which a join token can be spent."""

LEAST_KEY: Final = 16


class UnknownClient(LookupError):
    """No client has that name."""


class ClientExists(ValueError):
    """A client has that name already."""


class BadName(ValueError):
    """That is no name for a client."""


class BadPrefix(ValueError):
    """That network cannot lie behind a client."""


class DamagedClient(ValueError):
    """A client's file is not one that we wrote; the message says what to do."""


class PoolEmpty(ValueError):
    """No address is left in the tunnel's subnet."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client and its lease. Hashes are hex SHA-256, times are seconds since the epoch."""

    name: str
    address: str
    key_sha256: str = ""
    join_sha256: str = ""
    join_until: float = 0.0
    prefixes: tuple[str, ...] = ()
    """Networks behind the client that it may send from, beside its own addresses."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Return the prefixes as networks."""
        return tuple(ip_network(prefix) for prefix in self.prefixes)

    @property
    def joined(self) -> bool:
        """Return whether it has enrolled its key."""
        return bool(self.key_sha256)


class Registry:
    """The directory with the clients' files."""

    def __init__(
        self,
        directory: Path,
        subnet: IPv4Network,
        gateway: IPv4Address,
        first: IPv4Address,
        served: tuple[Network, ...] = (),
    ) -> None:
        self._directory, self._served = directory, served
        self._subnet, self._gateway, self._first = subnet, gateway, first

    def all(self) -> tuple[Client, ...]:
        """Return every client, by name, but for those whose files cannot be understood."""
        found = []
        for name in self.names():
            with suppress(UnknownClient):  # removed a moment ago
                try:
                    found.append(self.get(name))
                except DamagedClient as error:
                    log.error("%s", error)
        return tuple(found)

    def names(self) -> tuple[str, ...]:
        """Return the name of every client, in order."""
        return tuple(sorted(path.stem for path in self._directory.glob("*.json") if NAME.fullmatch(path.stem)))

    def get(self, name: str) -> Client:
        """Return one client; raise `UnknownClient` or `DamagedClient`."""
        if not NAME.fullmatch(name):
            raise UnknownClient(name)
        try:
            fields = json.loads(self._path(name).read_bytes())
            return Client(**{**fields, "prefixes": tuple(fields.get("prefixes", ()))})
        except FileNotFoundError:
            raise UnknownClient(name) from None
        except (ValueError, TypeError, AttributeError):
            text = f"{self._path(name)} is damaged: restore it from a backup, or `gtund client rm {name}` and join anew"
            raise DamagedClient(text) from None

    def add(self, name: str, now: float, prefixes: tuple[Network, ...] = ()) -> tuple[Client, bytes]:
        """Register a client and give it an address; return it and the join secret, which is not kept.

        `prefixes`: networks behind it that it may send from. Raise `BadName`, `ClientExists`, `BadPrefix`, `PoolEmpty`,
        or `DamagedClient` where it cannot be told which addresses are taken.
        """
        if not NAME.fullmatch(name):
            raise BadName(f"{name!r} cannot be a client's name: 1 to 11 of a-z, 0-9 and -, a letter first")
        with self._locked():
            if self._path(name).exists():
                raise ClientExists(f"there is a client {name!r} already: remove it first, or choose another name")
            self._check(prefixes)
            secret = secrets.token_bytes(JOIN_SECRET)
            texts = tuple(map(str, prefixes))
            client = Client(name, str(self._free_address()), "", _sha256(secret), now + JOIN_VALID, texts)
            self._write(client)
        return client, secret

    def rotate(self, name: str, now: float) -> tuple[Client, bytes]:
        """Let a client enrol another key; return it and the join secret. Raise `UnknownClient`.

        The lease stays. The key that it has is good until the new one is enrolled, and dead from then on: a token that
        is never spent locks nobody out.
        """
        with self._locked():
            secret = secrets.token_bytes(JOIN_SECRET)
            client = replace(self.get(name), join_sha256=_sha256(secret), join_until=now + JOIN_VALID)
            self._write(client)
        return client, secret

    def remove(self, name: str) -> None:
        """Forget a client; raise `UnknownClient`."""
        if not NAME.fullmatch(name):
            raise UnknownClient(name)
        with self._locked():  # not while somebody enrols: that would bring it back
            try:
                self._path(name).unlink()
            except FileNotFoundError:
                raise UnknownClient(name) from None

    def admit(self, name: str, key: bytes, join: bytes, now: float) -> Client | None:
        """Return the client if the key is its own, or if the join secret lets this key become its own; else None.

        A join secret is spent here, once.
        """
        try:
            client = self.get(name)
        except UnknownClient:
            client = Client(name, "")  # compare all the same, so that the time taken tells nobody which names exist
        except DamagedClient as error:
            log.error("client %s is not let in: %s", name, error)
            client = Client(name, "")
        if hmac.compare_digest(client.key_sha256, _sha256(key)):
            return client
        if not _fresh(client, join, now) or len(key) < LEAST_KEY:
            return None
        return self._enrol(name, key, join, now)

    def _enrol(self, name: str, key: bytes, join: bytes, now: float) -> Client | None:
        """Spend the join secret, unless `rotate` or `remove` was here since it was looked at."""
        with self._locked(), suppress(UnknownClient):
            client = self.get(name)
            if _fresh(client, join, now):
                joined = replace(client, key_sha256=_sha256(key), join_sha256="", join_until=0.0)
                self._write(joined)
                return joined
        return None

    def _check(self, prefixes: Iterable[Network]) -> None:
        """Raise `BadPrefix` for a network that is no unicast one, or that is somebody else's already."""
        others = [(f"client {client.name}", network) for client in self.all() for network in client.networks]
        others.append(("the tunnel", self._subnet))
        others += [("what gtund serves", network) for network in self._served]
        for prefix in prefixes:
            if not prefix.prefixlen or prefix.is_multicast or prefix.is_loopback or prefix.is_link_local:
                raise BadPrefix(f"{prefix} cannot lie behind a client: name the networks that it sends from")
            for whose, other in others:
                if prefix.version == other.version and prefix.overlaps(other):
                    raise BadPrefix(f"{prefix} cannot lie behind this client: {other} belongs to {whose}")

    def _free_address(self) -> IPv4Address:
        """Return the free address whose turn it is.

        They go round, since the kernel remembers connections for days: who gets an address that was just given back
        would be sent answers to what the one before had asked.
        """
        taken = {self.get(name).address for name in self.names()} | {str(self._gateway)}
        first, end = int(self._first), int(self._subnet.broadcast_address)
        turn = self._directory / ".next"
        begin = first
        with suppress(FileNotFoundError, ValueError):  # what cannot be read is where we begin
            begin = int(turn.read_bytes())
        begin = begin if first <= begin < end else first
        for number in (*range(begin, end), *range(first, begin)):
            if str(IPv4Address(number)) not in taken:
                write_private(turn, str(number + 1).encode())
                return IPv4Address(number)
        raise PoolEmpty(f"every address of {self._subnet} from {self._first} on is leased: remove a client")

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _write(self, client: Client) -> None:
        write_private(self._path(client.name), json.dumps(asdict(client)).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _fresh(client: Client, join: bytes, now: float) -> bool:
    return hmac.compare_digest(client.join_sha256, _sha256(join)) and now < client.join_until


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
