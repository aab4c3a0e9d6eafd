"""The source/destination check of a network interface: on, the cloud drops whatever a router forwards.

It is on by default in accounts and on interfaces from 2025 on (ECS help, "Enable the source/destination check of an
ENI"); a machine that routes has to switch it off. Not every region knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from cloud.provider import CloudError
from cloud.reading import Call

log = logging.getLogger(__name__)

ATTRIBUTES: Final = "DescribeNetworkInterfaceAttribute"


async def attributes(call: Call, eni: str) -> Mapping[str, Any]:
    """Return what the cloud says of the interface; raise `CloudError`."""
    return await call(ATTRIBUTES, {"NetworkInterfaceId": eni})


async def let_us_route(call: Call, eni: str) -> None:
    """Switch the check off where it is on. Where that cannot be done the log says so, and so does the doctor."""
    try:
        if (await attributes(call, eni)).get("SourceDestCheck") is not True:
            return
        await call("ModifyNetworkInterfaceAttribute", {"NetworkInterfaceId": eni, "SourceDestCheck": "false"})
    except CloudError as error:
        log.warning("whether %s lets us route could not be seen to: %s", eni, error)
    else:
        log.info("the source/destination check of %s was on and is off now", eni)
