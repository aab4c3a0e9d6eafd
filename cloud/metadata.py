"""Who this machine is, as the ECS metadata service tells it, and the credentials of its RAM role.

Tokens are tried first (the hardened mode) and renewed when refused; a service that knows none is asked without one.
Never through a proxy: the address means another machine there. Every call has a time-out and runs in a thread.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import IPv4Address
from typing import Final
from urllib.parse import quote

from cloud.provider import Denied, Unavailable

_TOKEN_SECONDS: Final = 21600  # the longest that the service gives
_MOST_BYTES: Final = 64 * 1024
_ROLES: Final = "meta-data/ram/security-credentials/"


@dataclass(frozen=True, slots=True)
class Identity:
    """What an instance is called and where it stands."""

    instance_id: str
    region: str
    zone: str
    vpc_id: str
    vswitch_id: str
    private_ip: IPv4Address
    mac: str
    eni: str
    account: str = ""


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """What the RAM role gives; `expires` is in seconds since the epoch."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires: float


class Metadata:
    """The metadata service at `base`, such as http://100.100.100.200. `timeout` is in seconds, per request."""

    def __init__(self, base: str, *, timeout: float = 2.0) -> None:
        self._base = base.rstrip("/")
        self._timeout = timeout
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    async def identity(self) -> Identity:
        """Return who we are; raise `Unavailable` or `Denied`."""
        names = ("instance-id", "region-id", "zone-id", "vpc-id", "vswitch-id", "private-ipv4", "mac")
        told = [await self.read(f"meta-data/{name}") for name in names]
        eni = await self.read(f"meta-data/network/interfaces/macs/{told[-1]}/network-interface-id")
        instance, region, zone, vpc, vswitch, address, mac = told
        try:
            account = await self.read("meta-data/owner-account-id")
        except Denied:  # nice to have, no more
            account = ""
        try:
            return Identity(instance, region, zone, vpc, vswitch, IPv4Address(address), mac, eni, account)
        except ValueError:
            raise self._nonsense("meta-data/private-ipv4") from None

    async def role_credentials(self) -> RoleCredentials:
        """Return credentials of the attached role; raise `Denied` when there is none, else `Unavailable`."""
        roles = (await self.read(_ROLES)).split()
        if not roles:
            raise Denied("no RAM role is attached to this instance: attach one, or name another source of credentials")
        text = await self.read(_ROLES + quote(roles[0], safe=""))
        try:
            told = json.loads(text)
            if told.get("Code", "Success") != "Success":
                raise Denied(f"the RAM role {roles[0]} gives no credentials", code=str(told["Code"]))
            expires = datetime.fromisoformat(told["Expiration"]).timestamp()
            return RoleCredentials(told["AccessKeyId"], told["AccessKeySecret"], told["SecurityToken"], expires)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise self._nonsense("the role's credentials") from None  # whose text may hold a secret

    async def skew(self) -> float | None:
        """Return by how many seconds this machine's clock is ahead of the service's; None where it does not say."""
        return await asyncio.to_thread(self._skew)

    def _skew(self) -> float | None:
        request = urllib.request.Request(f"{self._base}/latest/meta-data/", method="GET")  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                stamp = answer.headers.get("Date", "")
        except urllib.error.HTTPError as error:
            with error:
                stamp = error.headers.get("Date", "")
        except (OSError, http.client.HTTPException):
            return None
        try:
            return time.time() - parsedate_to_datetime(stamp).timestamp()
        except (ValueError, TypeError):
            return None

    async def read(self, item: str) -> str:
        """Return the text of ``/latest/ITEM``; raise `Denied` if it is missing or refused, else `Unavailable`."""
        return await asyncio.to_thread(self._read, item)

    def _read(self, item: str) -> str:
        for renewed in (False, True):
            if self._token is None:
                self._token = self._new_token()
            status, text = self._ask("GET", item, {"X-aliyun-ecs-metadata-token": self._token} if self._token else {})
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and not renewed:
                self._token = None  # it has expired, or tokens are needed from now on
                continue
            break
        if status == HTTPStatus.OK:
            return text.strip()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"the metadata service answers {status} for {item}")
        if status == HTTPStatus.NOT_FOUND and item.startswith(_ROLES):
            raise Denied("no RAM role is attached to this instance: attach one, or name another source of credentials")
        raise Denied(f"the metadata service at {self._base} answers {status} for {item}")

    def _new_token(self) -> str:
        """Return a token, or an empty text where the service knows none."""
        status, text = self._ask("PUT", "api/token", {"X-aliyun-ecs-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)})
        return text.strip() if status == HTTPStatus.OK else ""

    def _ask(self, method: str, item: str, headers: Mapping[str, str]) -> tuple[int, str]:
        request = urllib.request.Request(f"{self._base}/latest/{item}", method=method, headers=dict(headers))  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.status, answer.read(_MOST_BYTES).decode(errors="replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except (OSError, http.client.HTTPException) as error:
            reason = type(error).__name__
        raise Unavailable(f"no answer from the metadata service at {self._base} ({reason})")

    def _nonsense(self, item: str) -> Unavailable:
        return Unavailable(f"the metadata service at {self._base} gives no sense for {item}")
