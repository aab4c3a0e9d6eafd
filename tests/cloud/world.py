"""A small world for tests: one VPC, two route tables, an emulator on loopback, and the real provider against it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from cloud.aliyun import AliyunProvider, Rpc
from cloud.answers import Mark
from cloud.choice import Choice
from cloud.credentials import Fixed, Keys
from cloud.emulator.serve import Emulator, listening
from cloud.emulator.worldfile import (
    AccessKey,
    Endpoint,
    Instance,
    Listen,
    Network,
    Role,
    RouteTable,
    SecurityGroup,
    SecurityRule,
    VSwitch,
    WorldFile,
)
from cloud.metadata import Identity, Metadata
from cloud.retry import Pace

KEY = Keys("LTAI-test+key/id", "test+secret/==%")
QUICK = Pace(first=0.01, longest=0.05, tries=5, poll=0.01, settle=5.0, connect=2.0, read=2.0)
ALL_USED = Choice()
POD_CIDR = IPv4Network("10.244.0.0/16")
SERVICE_CIDR = IPv4Network("10.96.0.0/16")
ME = Identity(
    instance_id="i-nexthop",
    region="cn-shenzhen",
    zone="cn-shenzhen-a",
    vpc_id="vpc-sz",
    vswitch_id="vsw-router",
    private_ip=IPv4Address("172.18.2.10"),
    mac="00:16:3e:00:02:10",
    eni="eni-nexthop",
    account="1234567890123456",
)


def world_file(*, settle_ms: int = 30, tables: int = 2) -> WorldFile:
    """Return the file of a world that listens on free ports of loopback."""
    last = "vtb-system" if tables == 1 else "vtb-other"
    all_tables = (RouteTable("vtb-system", "System"), RouteTable("vtb-other"), RouteTable("vtb-unused"))
    return WorldFile(
        region="cn-shenzhen",
        settle_ms=settle_ms,
        listen=Listen(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 0), loopback_is="i-nexthop"),
        access_key=(AccessKey(KEY.key_id, KEY.secret),),
        role=Role("nexthop"),
        vpc=Network("vpc-sz", IPv4Network("172.18.0.0/16")),
        route_table=all_tables,
        vswitch=(
            VSwitch("vsw-hosts", IPv4Network("172.18.1.0/24"), "cn-shenzhen-a", "vtb-system", "hosts0"),
            VSwitch("vsw-router", IPv4Network("172.18.2.0/24"), "cn-shenzhen-a", last, "router0"),
        ),
        instance=(
            Instance("i-host", IPv4Address("172.18.1.5"), "vsw-hosts", "eni-host", "00:16:3e:00:01:05"),
            Instance(*("i-nexthop", ME.private_ip, "vsw-router", ME.eni, ME.mac), role=True, security_group="sg-app"),
        ),
        security_group=(SecurityGroup("sg-app", (SecurityRule("ingress", IPv4Network("172.18.0.0/16")),)),),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """An emulator that answers."""

    emulator: Emulator
    api: str
    metadata: Metadata

    def rpc(self, keys: Keys = KEY, pace: Pace = QUICK) -> Rpc:
        """Return the real SDK, pointed here."""
        return Rpc("cn-shenzhen", Fixed(keys), endpoint=self.api, protocol="http", pace=pace)

    def provider(
        self, appliance: str = "i-nexthop", instance: str = "i-nexthop", choice: Choice = ALL_USED, epoch: int = 1
    ) -> AliyunProvider:
        """Return the real provider on the real SDK."""
        me = replace(ME, instance_id=instance)
        return AliyunProvider(self.rpc(), me, Mark(appliance, epoch), choice=choice, pace=QUICK)

    def writes(self) -> list[str]:
        """Return the actions of all writes so far, taken or not."""
        return [call.action for call in self.emulator.calls if call.write]


@contextlib.asynccontextmanager
async def running(file: WorldFile | None = None) -> AsyncIterator[Running]:
    """Run an emulator on loopback."""
    emulator = Emulator(file or world_file())
    async with listening(emulator) as (api, metadata):
        yield Running(emulator, api, Metadata(f"http://{metadata}"))
