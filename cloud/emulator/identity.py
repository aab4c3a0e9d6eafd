"""What an instance is told about itself: metadata, and the credentials of its RAM role. Pure; `now` is passed in.

Both are functions of the world, the time and a seed that lives as long as the process: nothing is stored, so what was
handed out stays valid exactly as long as it says. (ECS help, "Instance metadata".)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final

from cloud.emulator.signature import Secret
from cloud.emulator.worldfile import Instance, WorldFile

TOKEN_TTL_HEADER: Final = "x-aliyun-ecs-metadata-token-ttl-seconds"  # noqa: S105 - a name
TOKEN_HEADER: Final = "x-aliyun-ecs-metadata-token"  # noqa: S105 - a name
_LONGEST_TTL: Final = 21600
# cloud-init asks for "2016-01-01", the documentation for "latest".
_VERSION: Final = re.compile(r"^20\d\d-\d\d-\d\d/")
# The cloud hands out six-hour credentials and new ones from half an hour before the old ones end.
_RENEWED_AT: Final = 11 / 12


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a plain text."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Issued:
    """One set of role credentials."""

    key_id: str
    secret: Secret = field(repr=False)
    since: float


class Identities:
    """All instances of a world."""

    def __init__(self, file: WorldFile, seed: bytes, start: float) -> None:
        self._file = file
        self._seed = seed
        self._start = start

    def secret_of(self, key_id: str, now: float) -> Secret | None:
        """Return what belongs to an access key id, long-lived or a role's (also one that has just expired)."""
        for key in self._file.access_key:
            if key.id == key_id:
                return Secret(key.secret)
        for instance in self._file.instance:
            for issue in (self._issue(now), self._issue(now) - 1, self._issue(now) - 2):
                issued = self._credentials(instance, issue)
                if issued is not None and issued.key_id == key_id:
                    return issued.secret
        return None

    def principal(self, key_id: str) -> str:
        """Return whose key this is: ``role/NAME``, or ``key/ID``."""
        if any(key.id == key_id for key in self._file.access_key) or self._file.role is None:
            return f"key/{key_id}"
        return f"role/{self._file.role.name}"

    def instance_at(self, address: str) -> Instance | None:
        """Return the instance that asks from this address."""
        ip = IPv4Address(address)
        if ip.is_loopback:
            return next((each for each in self._file.instance if each.id == self._file.listen.loopback_is), None)
        return next((each for each in self._file.instance if each.ip == ip), None)

    def answer(self, asker: str, method: str, path: str, headers: Mapping[str, str], now: float) -> Answer:
        """Answer a request to the metadata service; `headers` have lower-case names."""
        instance = self.instance_at(asker)
        if instance is None:
            return Answer(404, "not an instance of this VPC")
        if method == "PUT" and path == "/latest/api/token":
            return self._new_token(instance, headers, now)
        if method != "GET":
            return Answer(405, "method not allowed")
        token = headers.get(TOKEN_HEADER)
        if self._file.metadata.require_token if token is None else not self._fits(token, instance, now):
            return Answer(403, "a valid token is needed")
        return self._read(self._tree(instance, now), _VERSION.sub("latest/", path.strip("/"), count=1))

    def _new_token(self, instance: Instance, headers: Mapping[str, str], now: float) -> Answer:
        ttl = headers.get(TOKEN_TTL_HEADER, "")
        if "x-forwarded-for" in headers:
            return Answer(403, "not through a proxy")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= _LONGEST_TTL:
            return Answer(400, f"{TOKEN_TTL_HEADER}: 1 to {_LONGEST_TTL}")
        return Answer(200, self._token(instance, int(now) + int(ttl)))

    def _token(self, instance: Instance, until: int) -> str:
        return f"{until}.{self._derived('metadata', instance.id, str(until))}"

    def _fits(self, token: str, instance: Instance, now: float) -> bool:
        until = token.partition(".")[0]
        return until.isdecimal() and now < int(until) and hmac.compare_digest(token, self._token(instance, int(until)))

    def _read(self, tree: Mapping[str, str], path: str) -> Answer:
        wanted = path.strip("/")
        if wanted in tree:
            return Answer(200, tree[wanted])
        below = {leaf.removeprefix(f"{wanted}/") for leaf in tree if leaf.startswith(f"{wanted}/")}
        if not below:
            return Answer(404, "not found")
        return Answer(200, "\n".join(sorted({name.partition("/")[0] + "/" * ("/" in name) for name in below})))

    def _tree(self, instance: Instance, now: float) -> dict[str, str]:
        file = self._file
        vswitch = next(each for each in file.vswitch if each.id == instance.vswitch)
        place = {
            "vpc-id": file.vpc.id,
            "vpc-cidr-block": str(file.vpc.cidr),
            "vswitch-id": vswitch.id,
            "vswitch-cidr-block": str(vswitch.cidr),
        }
        items = place | {
            "instance-id": instance.id,
            "region-id": file.region,
            "zone-id": vswitch.zone,
            "private-ipv4": str(instance.ip),
            "eipv4": str(instance.eip or ""),
            "mac": instance.mac,
            "hostname": instance.id,
            "network-type": "vpc",
            "owner-account-id": file.account,
        }
        nic = place | {
            "network-interface-id": instance.eni,
            "primary-ip-address": str(instance.ip),
            "private-ipv4s": json.dumps([str(instance.ip)]),
            "netmask": str(vswitch.cidr.netmask),
            "gateway": str(vswitch.cidr[-3]),
        }
        tree = {f"latest/meta-data/{name}": value for name, value in items.items()}
        tree |= {
            f"latest/meta-data/network/interfaces/macs/{instance.mac}/{name}": value for name, value in nic.items()
        }
        document = {name: items[name] for name in ("instance-id", "region-id", "zone-id", "private-ipv4", "mac")}
        tree["latest/dynamic/instance-identity/document"] = json.dumps(document)
        if instance.public_key:
            tree["latest/meta-data/public-keys/a-key-pair/openssh-key"] = instance.public_key
        if instance.user_data:
            tree["latest/user-data"] = instance.user_data
        issued = self._credentials(instance, self._issue(now))
        if issued is not None and file.role is not None:
            tree[f"latest/meta-data/ram/security-credentials/{file.role.name}"] = _credentials_text(issued)
        return tree

    def _issue(self, now: float) -> int:
        lifetime = self._file.role.lifetime_seconds if self._file.role else 1
        return int((now - self._start) // (lifetime * _RENEWED_AT))

    def _credentials(self, instance: Instance, issue: int) -> Issued | None:
        role = self._file.role
        if role is None or not instance.role or issue < 0:
            return None
        since = self._start + issue * role.lifetime_seconds * _RENEWED_AT
        secret = Secret(
            secret=self._derived("secret", instance.id, str(issue)),
            token=self._derived("token", instance.id, str(issue)) * 3,
            expires=float(int(since + role.lifetime_seconds)),
        )
        return Issued(f"STS.{self._derived('key', instance.id, str(issue))[:24]}", secret, since)

    def _derived(self, *purpose: str) -> str:
        digest = hmac.new(self._seed, "\0".join(purpose).encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _credentials_text(issued: Issued) -> str:
    return json.dumps(
        {
            "AccessKeyId": issued.key_id,
            "AccessKeySecret": issued.secret.secret,
            "Expiration": _stamp(issued.secret.expires),
            "SecurityToken": issued.secret.token,
            "LastUpdated": _stamp(issued.since),
            "Code": "Success",
        },
        indent=2,
    )


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
