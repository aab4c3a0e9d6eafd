"""Looks at every prerequisite in the cloud. Asks, and changes nothing: a permission to write is tried by a dry run.

Each look stands alone: one that is denied or unanswered becomes a finding, and the rest goes on. `cloud.diagnosis`
judges.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from ipaddress import IPv4Network
from typing import Any, Final

from cloud import diagnosis, interface
from cloud.metadata import Identity
from cloud.provider import CloudError, Denied, Finding, Network, Observation, Rejected, State, Unavailable
from cloud.reading import Call

Skew = Callable[[], Awaitable[float | None]]

# RFC 5737: for documentation, so nobody routes one of them; which of the three the table lacks is tried.
_NOBODYS: Final = tuple(map(IPv4Network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
_GROUPS: Final = 50  # the most that one page of DescribeSecurityGroups gives
_POLICY: Final = "nexthop ram-policy > policy.json, then RAM console > Policies: attach it to the instance's role"
# What a call says that was allowed, and then had nothing to do.
_FINE: Final = ("dryrunoperation", "invalidrouteentry", "vpc_router_entry_not_exist")


async def examine(
    call: Call,
    identity: Identity,
    observe: Callable[[], Awaitable[Observation]],
    wanted: Collection[Network],
    skew: Skew | None,
) -> tuple[Finding, ...]:
    """Return what was found, prerequisites that hold included."""
    found = [diagnosis.clock(None if skew is None else await skew())]
    try:
        seen = await observe()
    except CloudError as error:
        state = State.FAIL if isinstance(error, Denied) else State.UNKNOWN
        fix = _POLICY if isinstance(error, Denied) else "see to the way to the API, then ask again"
        return (*found, Finding("read", state, f"the route tables cannot be read: {error}", fix))
    found.append(Finding("read", State.OK, f"{len(seen.entries)} entries in {', '.join(seen.vpc.tables)}"))
    found.append(await _permissions(call, identity, seen))
    found += await _interface(call, identity, seen, wanted)
    found += diagnosis.tables(seen, wanted)
    found += diagnosis.bypassed(seen)
    found += diagnosis.elsewhere(seen, _POLICY)
    found += diagnosis.conflicts(seen, wanted)
    found += diagnosis.controllers(seen, wanted)
    return tuple(found)


async def _permissions(call: Call, identity: Identity, seen: Observation) -> Finding:
    """Try each write without doing it."""
    table = seen.vpc.tables[0]
    there = {entry.destination for entry in seen.entries}
    nobodys = str(next((each for each in _NOBODYS if each not in there), _NOBODYS[0]))
    named = {"RouteTableId": table, "DestinationCidrBlock": nobodys}
    hop = {"NextHopType": "Instance", "NextHopId": identity.instance_id}
    item = {"RouteTableId": table, "DstCidrBlock": nobodys, "NextHop": identity.instance_id}
    tries: Mapping[str, Mapping[str, Any]] = {
        "CreateRouteEntry": named | hop,
        "CreateRouteEntries": {"RouteEntries": [item | {"NextHopType": "Instance"}]},
        # These three are about an entry that does not exist: even a cloud that overlooks the dry run does nothing.
        "ModifyRouteEntry": named | {"RouteEntryName": "nexthop-doctor"},
        "DeleteRouteEntry": named | {"NextHopId": identity.instance_id},
        "DeleteRouteEntries": {"RouteEntries": [item]},
    }
    denied, unclear, wrong = [], [], []
    for action, params in tries.items():
        try:
            await call(action, {**params, "DryRun": "true"})
        except Denied:
            denied.append(f"vpc:{action}")
        except Rejected as error:
            if not error.code.lower().startswith(_FINE):
                wrong.append(str(error))
        except Unavailable:
            unclear.append(f"vpc:{action}")
        except CloudError:
            pass  # busy, full or taken: it was allowed
    if denied:
        return Finding("permissions", State.FAIL, f"not allowed: {', '.join(denied)}", _POLICY)
    if wrong:
        return Finding("permissions", State.WARN, f"a dry run was turned down: {wrong[0]}", "see what the cloud says")
    if unclear:
        return Finding("permissions", State.UNKNOWN, f"no answer for {', '.join(unclear)}", "ask again")
    return Finding("permissions", State.OK, "every call that changes route entries is allowed")


async def _interface(call: Call, identity: Identity, seen: Observation, wanted: Collection[Network]) -> list[Finding]:
    """Look at our network interface, and at its security groups."""
    try:
        told = await interface.attributes(call, identity.eni)
    except CloudError as error:
        return [Finding("source-dest-check", State.UNKNOWN, f"{identity.eni} cannot be looked at: {error}", _POLICY)]
    found = [diagnosis.interface(identity.eni, identity.region, told)]
    ours = [str(each) for each in (told.get("SecurityGroupIds") or {}).get("SecurityGroupId") or []]
    for group in ours:
        try:
            rules = await _rules(call, group, "all")
        except CloudError as error:
            found.append(Finding("security-group", State.UNKNOWN, f"{group} cannot be looked at: {error}", _POLICY))
        else:
            found.append(diagnosis.security_group(group, rules, seen, wanted))
    return [*found, *await _hosts(call, seen, ours, wanted)]


async def _hosts(call: Call, seen: Observation, ours: Collection[str], wanted: Collection[Network]) -> list[Finding]:
    """Look whether the VPC's other security groups, the first page of them, let out what hosts send to the CIDRs."""
    try:
        told = await call("DescribeSecurityGroups", {"VpcId": seen.vpc.vpc_id, "PageSize": str(_GROUPS)})
        listed = (told.get("SecurityGroups") or {}).get("SecurityGroup") or []
        groups = [
            diagnosis.HostGroup(str(each["SecurityGroupId"]), each.get("SecurityGroupType") == "enterprise", rules)
            for each in listed
            if each["SecurityGroupId"] not in ours
            for rules in [await _rules(call, str(each["SecurityGroupId"]), "egress")]
        ]
    except CloudError as error:
        return [Finding("host-security-groups", State.UNKNOWN, f"they cannot be looked at: {error}", _POLICY)]
    return list(diagnosis.host_groups(groups, wanted, unseen=int(told.get("TotalCount") or 0) - len(listed)))


async def _rules(call: Call, group: str, direction: str) -> Sequence[Mapping[str, Any]]:
    rules = await call("DescribeSecurityGroupAttribute", {"SecurityGroupId": group, "Direction": direction})
    return (rules.get("Permissions") or {}).get("Permission") or []
