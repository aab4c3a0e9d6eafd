"""Whom gtund lets in: one small file per client, which is also its lease.

A client keeps its address for as long as it is registered, so connections through it survive any restart. Of a key and
of a join secret only the SHA-256 is kept. Files are read anew each time: `gtund client rm` needs no running gtund.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from .identity import write_private
from .token import NAME

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
        """Return every client, by name."""
        return tuple(self.get(path.stem) for path in sorted(self._directory.glob("*.json")))

    def get(self, name: str) -> Client:
        """Return one client; raise `UnknownClient`."""
        if not NAME.fullmatch(name):
            raise UnknownClient(name)
        try:
            fields = json.loads(self._path(name).read_bytes())
            return Client(**{**fields, "prefixes": tuple(fields.get("prefixes", ()))})
        except FileNotFoundError:
            raise UnknownClient(name) from None

    def add(self, name: str, now: float, prefixes: tuple[Network, ...] = ()) -> tuple[Client, bytes]:
        """Register a client and give it an address; return it and the join secret, which is not kept.

        `prefixes`: networks behind it that it may send from. Raise `BadName`, `ClientExists`, `BadPrefix`, `PoolEmpty`.
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
        self.get(name)
        self._path(name).unlink(missing_ok=True)

    def admit(self, name: str, key: bytes, join: bytes, now: float) -> Client | None:
        """Return the client if the key is its own, or if the join secret lets this key become its own; else None.

        A join secret is spent here, once.
        """
        try:
            client = self.get(name)
        except UnknownClient:
            client = Client(name, "")  # compare all the same, so that the time taken tells nobody which names exist
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
        taken = {client.address for client in self.all()} | {str(self._gateway)}
        first, end = int(self._first), int(self._subnet.broadcast_address)
        turn = self._directory / ".next"
        begin = int(turn.read_text()) if turn.exists() else first
        begin = begin if first <= begin < end else first
        for number in (*range(begin, end), *range(first, begin)):
            if str(IPv4Address(number)) not in taken:
                turn.write_text(str(number + 1))
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
