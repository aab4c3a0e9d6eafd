"""Every prerequisite is looked at, nothing is changed by looking, and each finding says how to mend it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from cloud import diagnosis
from cloud.aliyun import connect
from cloud.emulator.world import NextHop, Wanted
from cloud.emulator.worldfile import SecurityGroup, SecurityRule, WorldFile
from cloud.policy import ram_policy
from cloud.provider import CloudError, Finding, State
from cloud.quota import aggregates
from tests.cloud.direct import Direct
from tests.cloud.world import ME, POD_CIDR, QUICK, SERVICE_CIDR, Running, running, world_file


def examined(
    file: WorldFile | None = None, wanted: Sequence[IPv4Network] = (POD_CIDR,), **taken: str
) -> dict[str, Finding]:
    """Return the findings by code, in a world where `taken` CIDRs have next hops already."""

    async def main() -> tuple[Finding, ...]:
        cloud = Direct(file=file or world_file(settle_ms=0, tables=1))
        for name, hop in taken.items():
            cidr = name.removeprefix("n").replace("_", ".").replace("..", "/")
            cloud.world.create(Wanted("vtb-system", cidr, NextHop("Instance", hop)), 0.0)
        before = cloud.world.entries("vtb-system", 0.0)
        found = await cloud.provider().examine(wanted)
        assert cloud.world.entries("vtb-system", cloud.now) == before
        return found

    return {each.code: each for each in asyncio.run(main())}


def states(found: dict[str, Finding]) -> dict[str, State]:
    return {code: each.state for code, each in found.items() if each.state is not State.OK}


def test_a_vpc_in_order_has_nothing_to_mend() -> None:
    assert states(examined()) == {"clock": State.UNKNOWN}  # nobody to ask for the time here


def with_me(file: WorldFile, **changes: Any) -> WorldFile:
    machines = tuple(replace(each, **changes) if each.id == "i-nexthop" else each for each in file.instance)
    return replace(file, instance=machines)


def test_a_source_check_that_is_on_fails_and_the_fix_is_a_command() -> None:
    found = examined(with_me(world_file(settle_ms=0), source_dest_check=True))["source-dest-check"]
    assert found.state is State.FAIL
    assert found.fix.startswith("aliyun ecs ModifyNetworkInterfaceAttribute --RegionId cn-shenzhen")
    assert "eni-nexthop --SourceDestCheck false" in found.fix


@pytest.mark.parametrize(
    ("rules", "state"),
    [
        ([SecurityRule("ingress", IPv4Network("0.0.0.0/0"))], State.OK),
        ([SecurityRule("ingress", IPv4Network("172.18.1.0/24"))], State.FAIL),
        ([SecurityRule("ingress", IPv4Network("172.18.0.0/16"), protocol="TCP", ports="80/80")], State.FAIL),
        ([], State.FAIL),
        (
            [
                SecurityRule("ingress", IPv4Network("172.18.0.0/16")),
                SecurityRule("ingress", IPv4Network("172.18.0.0/16"), policy="Drop"),
            ],
            State.FAIL,
        ),
        (
            [
                SecurityRule("ingress", IPv4Network("172.18.0.0/16")),
                SecurityRule("egress", IPv4Network("10.0.0.0/8"), policy="Drop"),
            ],
            State.WARN,
        ),
    ],
)
def test_a_security_group_has_to_let_every_vswitch_in(rules: list[SecurityRule], state: State) -> None:
    file = replace(world_file(settle_ms=0), security_group=(SecurityGroup("sg-app", tuple(rules)),))
    assert examined(file)["security-group"].state is state


OUT = IPv4Network("10.244.0.0/16")


@pytest.mark.parametrize(
    ("group", "state"),
    [
        (SecurityGroup("sg-hosts"), State.OK),  # a basic group lets out what no rule drops
        (SecurityGroup("sg-hosts", (SecurityRule("egress", IPv4Network("10.0.0.0/8"), policy="Drop"),)), State.WARN),
        (SecurityGroup("sg-hosts", (), "enterprise"), State.WARN),
        (SecurityGroup("sg-hosts", (SecurityRule("egress", IPv4Network("172.16.0.0/12")),), "enterprise"), State.WARN),
        (SecurityGroup("sg-hosts", (SecurityRule("egress", OUT, "TCP", "80/80"),), "enterprise"), State.OK),
    ],
)
def test_a_hosts_security_group_that_lets_nothing_out_to_the_cidr_is_warned_about(
    group: SecurityGroup, state: State
) -> None:
    file = world_file(settle_ms=0)
    found = examined(replace(file, security_group=(*file.security_group, group)))["host-security-groups"]
    assert found.state is state
    if state is State.WARN:
        assert "sg-hosts does not let packets to 10.244.0.0/16 out" in found.text
        assert "Outbound" in found.fix


def test_full_tables_conflicts_shadows_and_other_controllers_are_named() -> None:
    found = examined(n10_244_0_0__16="i-host")
    assert states(found)["conflict"] is State.FAIL
    assert "nexthop cidr adopt 10.244.0.0/16" in found["conflict"].fix
    found = examined(n10_244_1_0__24="i-host", n10_244_2_0__24="i-nexthop")
    assert states(found)["shadowed"] is State.WARN
    assert states(found)["other-controller"] is State.FAIL
    assert states(examined(wanted=[SERVICE_CIDR], n10_244_1_0__24="i-host", n10_244_2_0__24="i-nexthop")) == {
        "clock": State.UNKNOWN,
        "other-controller": State.WARN,
    }
    assert examined(wanted=[IPv4Network(f"10.{n}.0.0/16") for n in range(201)])["quota"].state is State.FAIL
    assert states(examined(wanted=[IPv4Network("172.16.0.0/12")]))["vswitch-inside"] is State.WARN


@pytest.mark.parametrize(
    ("skew", "state"), [(0.3, State.OK), (-61, State.WARN), (901, State.FAIL), (None, State.UNKNOWN)]
)
def test_a_clock_that_is_wrong_by_a_quarter_of_an_hour_fails(skew: float | None, state: State) -> None:
    assert diagnosis.clock(skew).state is state


# ---- permissions, with the real SDK and a role that lacks one -----------------------------------------------------


def actions(policy: Any) -> list[str]:
    return [action for statement in policy["Statement"] for action in statement["Action"]]


def in_world(test: Any, **role: Any) -> None:
    async def main() -> None:
        file = world_file(settle_ms=0)
        assert file.role is not None
        async with running(replace(with_me(file, source_dest_check=True), role=replace(file.role, **role))) as here:
            await test(here)

    asyncio.run(main())


async def provider(here: Running) -> Any:
    return await connect(endpoint=here.api, protocol="http", metadata=here.metadata._base, pace=QUICK)


def test_the_policy_that_we_print_is_all_that_is_needed() -> None:
    printed = ram_policy(ME.region, ME.account, ["vtb-system"])
    many = [IPv4Network(f"10.{n}.0.0/16") for n in range(6)]

    async def test(here: Running) -> None:
        cloud = await provider(here)
        assert await cloud.ensure(many) == {}
        assert await cloud.ensure([POD_CIDR]) == {}
        here.emulator.world.create(Wanted("vtb-system", str(SERVICE_CIDR), NextHop("Instance", "i-host")), 0.0)
        await cloud.adopt(SERVICE_CIDR)
        assert await cloud.withdraw([*many, POD_CIDR]) == {}
        found = await cloud.examine([SERVICE_CIDR])
        assert [each for each in found if each.state is not State.OK] == []
        assert {call.action for call in here.emulator.calls if call.status == 403} == set()
        assert here.emulator.world.source_dest_check[ME.eni] is False  # it was on, and connecting switched it off
        policy = cloud.policy()
        assert actions(policy) == actions(printed)
        assert policy["Statement"][0]["Resource"] == [
            f"acs:vpc:cn-shenzhen:1234567890123456:routetable/{table}" for table in ("vtb-other", "vtb-system")
        ]
        assert policy["Statement"][-1]["Resource"] == [f"acs:ecs:cn-shenzhen:1234567890123456:eni/{ME.eni}"]
        used = {call.action for call in here.emulator.calls}
        assert used == {action.partition(":")[2] for action in actions(printed)}  # and nothing in it is too much

    in_world(test, allow=tuple(actions(printed)))


@pytest.mark.parametrize("missing", actions(ram_policy(ME.region, "", ())))
def test_the_doctor_names_the_permission_that_is_missing(missing: str) -> None:
    async def test(here: Running) -> None:
        cloud = await provider(here)
        before = here.emulator.world.entries("vtb-system", 1e12)
        found = await cloud.examine([POD_CIDR])
        wrong = [each for each in found if each.state in {State.FAIL, State.UNKNOWN}]
        assert wrong, missing
        assert missing.partition(":")[2] in " ".join(each.text + each.fix for each in wrong)
        assert here.emulator.world.entries("vtb-system", 1e12) == before

    allowed = [each for each in actions(ram_policy(ME.region, "", ())) if each != missing]
    in_world(test, allow=tuple(allowed))


def test_aggregates_are_exact() -> None:
    networks = [
        IPv4Network(cidr) for cidr in ("10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/24", "10.9.0.0/16", "10.9.1.0/24")
    ]
    found = {str(each.network): [str(part) for part in each.parts] for each in aggregates(networks)}
    assert found == {"10.0.0.0/23": ["10.0.0.0/24", "10.0.1.0/24"], "10.9.0.0/16": ["10.9.0.0/16", "10.9.1.0/24"]}


def test_an_error_of_one_look_does_not_end_the_others() -> None:
    async def main() -> tuple[Finding, ...]:
        cloud = Direct()
        whole = cloud.__class__.__call__

        async def silent(self: Direct, action: str, params: Any) -> Any:
            if action == "DescribeNetworkInterfaceAttribute":
                raise CloudError("no answer")
            return await whole(self, action, params)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Direct, "__call__", silent)
            return await cloud.provider().examine([POD_CIDR])

    found = {each.code: each.state for each in asyncio.run(main())}
    assert found["source-dest-check"] is State.UNKNOWN
    assert found["quota"] is State.OK
