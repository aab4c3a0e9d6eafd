"""The contract against a real account, where NEXTHOP_LIVE_* names one. **It has not been run**; see cloud/README.md.

On an instance of the VPC (who we are comes from its metadata), with a scratch route table that nothing depends on:

    NEXTHOP_LIVE_TABLE      the scratch table's id, vtb-...; entries for parts of 192.0.2.0/24 come and go in it
    NEXTHOP_LIVE_STRANGER   the id of another instance of the VPC, which plays the foreign next hop
    NEXTHOP_LIVE_CREDENTIALS  "role" (default), "env", or the path of a file
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Network
from typing import Any

import pytest

from cloud.aliyun import Rpc, connect
from cloud.choice import Choice
from cloud.credentials import named
from cloud.metadata import Metadata
from cloud.provider import Network, Owner
from tests.cloud.contract import Cloud, ProviderContract

TABLE = os.environ.get("NEXTHOP_LIVE_TABLE", "")
STRANGER = os.environ.get("NEXTHOP_LIVE_STRANGER", "")
CREDENTIALS = os.environ.get("NEXTHOP_LIVE_CREDENTIALS", "role")
METADATA = "http://100.100.100.200"
SCRATCH = IPv4Network("192.0.2.0/24")


@pytest.mark.skipif(not (TABLE and STRANGER), reason="NEXTHOP_LIVE_TABLE and NEXTHOP_LIVE_STRANGER name no account")
class TestLiveContract(ProviderContract):
    def cloud(self) -> AbstractAsyncContextManager[Cloud]:
        return self._cloud()

    @contextlib.asynccontextmanager
    async def _cloud(self) -> AsyncIterator[Cloud]:
        provider = await connect(choice=Choice((TABLE,)), credentials=CREDENTIALS, appliance_id="nexthop-contract")
        service = Metadata(METADATA)
        rpc = Rpc(provider.identity.region, named(CREDENTIALS, service))
        writes = 0
        send = provider._call

        async def counted(action: str, params: Mapping[str, Any]) -> Any:
            nonlocal writes
            writes += not action.startswith("Describe")
            return await send(action, params)

        provider._writer._call = counted

        async def stranger(destination: Network) -> None:
            await rpc(
                "CreateRouteEntry",
                {
                    "RouteTableId": TABLE,
                    "DestinationCidrBlock": str(destination),
                    "NextHopType": "Instance",
                    "NextHopId": STRANGER,
                },
            )
            while not any(each.status.value == "Available" for each in (await provider.observe()).to(destination)):
                pass  # each look takes its time

        try:
            yield Cloud(provider, stranger, lambda: writes)
        finally:
            for entry in (await provider.observe()).entries:
                if entry.owner is not Owner.SYSTEM and entry.destination.subnet_of(SCRATCH):  # type: ignore[arg-type]
                    await rpc("DeleteRouteEntry", {"RouteEntryId": entry.entry_id})
