"""A cloud without a network: the real provider's calls go straight into an emulated world, with a clock of its own.

Each call takes 10 ms of that clock. `watch` is called after every call, with the world as it is then; `faults` are used
up by writes, one each: an error is raised instead of the deed, "late" happens and then times out, "lost" only times
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import Any

from cloud.answers import Mark
from cloud.emulator.actions import ROUTE_WRITES, perform
from cloud.emulator.world import ApiError, World
from cloud.emulator.worldfile import WorldFile
from cloud.errors import classify
from cloud.metadata import Identity
from cloud.provider import CloudError, Quota, Unavailable
from cloud.retry import Pace
from cloud.route_table import AliyunProvider
from tests.cloud.world import ME, world_file

PACE = Pace(first=0.0, longest=0.0, tries=4, poll=0.0, settle=1.0)
Fault = CloudError | str | None


def flat(params: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as they are on the wire: ``X.N.Y``."""
    found: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, str):
            found[name] = value
        else:
            name = "Tag" if name == "Tags" else name  # noqa: PLW2901 - as the SDK's setter does
            found |= {f"{name}.{n}.{key}": text for n, item in enumerate(value, 1) for key, text in item.items()}
    return found


class Direct:
    """Is a `Call`."""

    def __init__(self, *faults: Fault, file: WorldFile | None = None) -> None:
        self.world = World(file or world_file(settle_ms=0, tables=1))
        self.faults: list[Fault] = list(faults)
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.now = 0.0
        self.under_way = 0
        self.watch: Callable[[], None] = lambda: None
        self.fail: Callable[[str], Fault] = self._next

    async def __call__(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.sent.append((action, params))
        self.now += 0.01
        write = action in ROUTE_WRITES and params.get("DryRun") is None
        fault = self.fail(action) if write else None
        self.under_way += write
        assert self.under_way <= 1, "two writes at once"
        try:
            await asyncio.sleep(0)
            return self._act(action, params, fault)
        finally:
            self.under_way -= write
            self.watch()

    def _act(self, action: str, params: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
        if isinstance(fault, CloudError):
            raise fault
        if fault == "lost":
            raise Unavailable("timed out")
        version = "2014-05-26" if "Interface" in action or "SecurityGroup" in action else "2016-04-28"
        try:
            call = {**flat(params), "Action": action, "Version": version, "RegionId": "cn-shenzhen"}
            answer = perform(self.world, call, self.now)
        except ApiError as error:
            raise classify(error.code, error.status)(error.message, code=error.code) from None
        if fault == "late":
            raise Unavailable("timed out")
        return answer

    def _next(self, _action: str) -> Fault:
        return self.faults.pop(0) if self.faults else None

    def provider(
        self,
        mark: Mark = Mark("i-nexthop"),  # noqa: B008 - frozen
        identity: Identity = ME,
        pace: Pace = PACE,
        quota: Quota = Quota(),  # noqa: B008 - frozen
    ) -> AliyunProvider:
        return AliyunProvider(self, identity, mark, pace=pace, quota=quota, chance=lambda: 0.0)

    def writes(self) -> list[str]:
        return [action for action, _ in self.sent if action in ROUTE_WRITES]

    def ours(self, table: str = "vtb-system") -> list[str]:
        return [str(entry.destination) for entry in self.world.entries(table, self.now) if entry.custom]


ROOMY = Quota(limit=1000, reserve=0)


def many(count: int) -> list[IPv4Network]:
    """Return so many CIDRs."""
    return [IPv4Network(f"10.{n // 250}.{n % 250}.0/24") for n in range(count)]
