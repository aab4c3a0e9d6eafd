"""The least that our credentials have to be allowed, as a RAM policy. Pure.

Writes are limited to the route tables that we program, and to our own network interface. The calls that list take `*`:
whether they can be limited is not documented (VPC API reference 2016-04-28, "RAM authorization").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

WRITES: Final = (
    "CreateRouteEntry",
    "CreateRouteEntries",
    "DeleteRouteEntry",
    "DeleteRouteEntries",
    "ModifyRouteEntry",
)
READS: Final = ("DescribeVpcs", "DescribeVSwitches")
LOOKS: Final = ("DescribeNetworkInterfaceAttribute", "DescribeSecurityGroupAttribute", "DescribeSecurityGroups")


# In tables that hosts use and that we do not program: what is left of ours there is found, and goes with its CIDR.
ELSEWHERE: Final = ("vpc:DescribeRouteEntryList", "vpc:DeleteRouteEntry", "vpc:DeleteRouteEntries")


def ram_policy(
    region: str,
    account: str,
    tables: Sequence[str],
    *,
    others: Sequence[str] = (),
    eni: str = "",
    by_tag: bool = False,
) -> Mapping[str, object]:
    """Return the policy; what is not known becomes `*`. `by_tag`: tables are looked for by a tag.

    `others`: tables that hosts use and that we do not program.
    """
    reads = (*READS, "DescribeRouteTableList") if by_tag else READS
    names = tables or ["*"]
    resources = [f"acs:vpc:{region}:{account or '*'}:routetable/{table}" for table in names]
    elsewhere = [f"acs:vpc:{region}:{account or '*'}:routetable/{table}" for table in others]
    interface = f"acs:ecs:{region}:{account or '*'}:eni/{eni or '*'}"
    return {
        "Version": "1",
        "Statement": [
            _allow([*(f"vpc:{each}" for each in WRITES), "vpc:DescribeRouteEntryList"], resources),
            *([_allow(ELSEWHERE, elsewhere)] if elsewhere else []),
            _allow([f"vpc:{each}" for each in reads], "*"),
            # What `nexthop doctor` looks at; and our own interface's source/destination check, which has to be off.
            _allow([f"ecs:{each}" for each in LOOKS], "*"),
            _allow(["ecs:ModifyNetworkInterfaceAttribute"], [interface]),
        ],
    }


def _allow(actions: Sequence[str], resource: Sequence[str] | str) -> Mapping[str, object]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource if resource == "*" else list(resource)}
