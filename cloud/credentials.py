"""Where the keys come from: the instance's RAM role, the environment, or a file that only its owner can read.

Rule: a secret is in no repr, no message and no log. Role credentials are fetched again well before they expire, and
are used on while the metadata service is silent and they are still good.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cloud.metadata import Metadata
from cloud.provider import Denied, Unavailable

# The cloud hands out new ones half an hour before the old ones end; asking earlier gets the same ones again.
_EARLY_SECONDS: Final = 20 * 60.0
_ASK_AGAIN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs a call. `token` is empty for a long-lived key."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


class Credentials(Protocol):
    """A source of keys."""

    async def keys(self) -> Keys:
        """Return keys that are good now; raise `Denied` or `Unavailable`."""
        ...

    def refused(self, keys: Keys) -> None:
        """Take note that the cloud refused these: fetch others at the next call, if there may be others."""
        ...


class Fixed:
    """Keys that do not change while we run."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def keys(self) -> Keys:
        """Return them."""
        return self._keys

    def refused(self, keys: Keys) -> None:
        """Do nothing: there are no others."""


class InstanceRole:
    """The keys of the RAM role that is attached to this instance."""

    def __init__(self, metadata: Metadata, clock: Callable[[], float] = time.time) -> None:
        self._metadata = metadata
        self._clock = clock
        self._keys: Keys | None = None
        self._expires = 0.0
        self._asked = float("-inf")
        self._asking = asyncio.Lock()

    async def keys(self) -> Keys:
        """Return the keys, fetched anew from 20 minutes before they expire (then at most once a minute)."""
        async with self._asking:
            now = self._clock()
            if self._keys is not None and (
                now < self._expires - _EARLY_SECONDS or now < min(self._asked + _ASK_AGAIN_SECONDS, self._expires)
            ):
                return self._keys
            self._asked = now
            try:
                fetched = await self._metadata.role_credentials()
            except Unavailable:
                if self._keys is not None and now < self._expires:
                    return self._keys
                raise
            self._keys = Keys(fetched.key_id, fetched.secret, fetched.token)
            self._expires = fetched.expires
            return self._keys

    def refused(self, keys: Keys) -> None:
        """Forget them, unless they have been replaced already."""
        if self._keys == keys:
            self._keys = None


def from_environment(environment: Mapping[str, str] = os.environ) -> Fixed:
    """Read ALIBABA_CLOUD_ACCESS_KEY_ID, ..._SECRET and, for STS, ALIBABA_CLOUD_SECURITY_TOKEN; raise `Denied`."""
    names = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise Denied(f"no cloud credentials: set {' and '.join(missing)} in the environment")
    return Fixed(
        Keys(environment[names[0]], environment[names[1]], environment.get("ALIBABA_CLOUD_SECURITY_TOKEN", ""))
    )


def from_file(path: Path) -> Fixed:
    """Read access_key_id, access_key_secret and, for STS, security_token from a TOML file; raise `Denied`."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            raw = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not TOML"
        raise Denied(f"cannot read cloud credentials from {path}: {reason}") from None
    ours = os.geteuid() in {0, status.st_uid} or status.st_uid == 0  # root purges with the daemon's
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or not ours:
        raise Denied(f"cloud credentials in {path} are open to others: chown it to the daemon's user and chmod 600")
    names = ("access_key_id", "access_key_secret", "security_token")
    unknown = set(raw) - set(names)
    if unknown:
        raise Denied(f"unknown key in {path}: {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    values = [raw.get(name, "") for name in names]
    if not all(isinstance(value, str) for value in values) or not all(values[:2]):
        raise Denied(f"{path} needs access_key_id and access_key_secret, as strings")
    return Fixed(Keys(*values))


def named(source: str, metadata: Metadata) -> Credentials:
    """Return what the configuration names: "role", "env", or the path of a file."""
    if source == "role":
        return InstanceRole(metadata)
    if source == "env":
        return from_environment()
    return from_file(Path(source))
