"""`python -m tests.lab.cloudtable`, on the lab's appliance: print the VPC's route table as the cloud's API lists it.

The real SDK asks, with the credentials of the instance's role; as JSON, one object per entry.
"""

from __future__ import annotations

import asyncio
import json
import sys

from cloud.aliyun import connect
from tests.lab import topology


async def table() -> list[dict[str, str]]:
    """Return every entry of every table, as text."""
    provider = await connect(endpoint=topology.CLOUD_API, protocol="http", metadata=f"http://{topology.METADATA}")
    seen = await provider.observe()
    return [
        {
            "destination": str(entry.destination),
            "table": entry.table,
            "id": entry.entry_id,
            "next_hop": entry.next_hop,
            "type": entry.owner.value,
            "status": entry.status.value,
            "name": entry.name,
        }
        for entry in seen.entries
    ]


if __name__ == "__main__":
    json.dump(asyncio.run(table()), sys.stdout)
