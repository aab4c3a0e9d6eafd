"""A thousand CIDRs: how much is written, which does not depend on the machine as seconds do."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

from appliance.kernel.state import Route
from appliance.model import Intent
from tests.appliance.fakes import until
from tests.appliance.forwardbench import running

MANY = tuple(Intent(ip_network(f"10.{i // 250}.{i % 250}.0/24"), "hk") for i in range(1000))


def test_a_thousand_cidrs_are_one_write_of_the_firewall_and_two_routes_each(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await until(bench.forward.ready)
            await bench.settled()
            writes, did = bench.firewall.writes, len(bench.routes.did)
            db = bench.store
            callbacks, db._callbacks = db._callbacks, []
            for intent in MANY:
                db.put(intent)
            db._callbacks = callbacks
            bench.forward.wake()
            await until(lambda: len(bench.forward.carrying) == len(MANY), within=60)
            assert bench.firewall.writes == writes + 1
            added = [what for kind, what in bench.routes.did[did:] if kind == "add"]
            assert len(added) == 2 * len(MANY)

            await bench.settled()
            writes, did = bench.firewall.writes, len(bench.routes.did)
            bench.forward.wake()
            await bench.settled()
            assert (bench.firewall.writes, len(bench.routes.did)) == (writes, did)  # no change, no write

            db.put(Intent(ip_network("10.250.0.0/16"), "hk"))
            await until(lambda: len(bench.forward.carrying) == len(MANY) + 1)
            assert bench.firewall.writes == writes + 1
            fresh = [what for kind, what in bench.routes.did[did:] if kind == "add"]
            assert fresh == [
                Route(ip_network("10.250.0.0/16"), None, 4000),
                Route(ip_network("10.250.0.0/16"), "tun-hk", 50),
            ]

    asyncio.run(scenario())
