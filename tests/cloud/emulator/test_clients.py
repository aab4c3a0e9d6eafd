"""Clients that nobody here wrote, unmodified, against the emulator: what they get, the cloud would give them, too.

The Tea SDK for Python is in the `dev` extra. `@alicloud/pop-core` is installed by npm into a temporary directory, for
this one test; where npm is missing or cannot install, the test is skipped and says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models
from alibabacloud_vpc20160428.client import Client

from cloud.credentials import Keys
from tests.cloud.world import KEY, Running, running, world_file

# The Tea SDK still asks for the time in the old way, of which Python warns from 3.12 on.
pytestmark = pytest.mark.filterwarnings(r"ignore:datetime\.datetime\.utcnow:DeprecationWarning")

REGION = "cn-shenzhen"
TABLE = "vtb-system"


def beside(client: Callable[[Running], Any], settle_ms: int = 0) -> Any:
    """Run a blocking client beside an emulator and return what it found."""

    async def main() -> Any:
        async with running(world_file(settle_ms=settle_ms)) as here:
            return await asyncio.to_thread(client, here)

    return asyncio.run(main())


def tea(here: Running, algorithm: str | None, keys: Keys = KEY) -> Any:
    return Client(
        Config(
            access_key_id=keys.key_id,
            access_key_secret=keys.secret,
            security_token=keys.token or None,
            endpoint=here.api,
            protocol="HTTP",
            region_id=REGION,
            signature_algorithm=algorithm,
        )
    )


@pytest.mark.parametrize("algorithm", [None, "v2"], ids=["ACS3", "RPC-v1"])
def test_the_tea_sdk_creates_changes_lists_and_deletes(algorithm: str | None) -> None:
    text = "~ * + / é 中 ' \" & ( ) !"

    def client(here: Running) -> None:
        cloud = tea(here, algorithm)
        made = cloud.create_route_entry(
            models.CreateRouteEntryRequest(
                region_id=REGION,
                route_table_id=TABLE,
                destination_cidr_block="10.1.0.0/16",
                next_hop_type="Instance",
                next_hop_id="i-host",
                description=text,
            )
        ).body.route_entry_id
        cloud.modify_route_entry(
            models.ModifyRouteEntryRequest(
                region_id=REGION, route_entry_id=made, new_next_hop_type="Instance", new_next_hop_id="i-nexthop"
            )
        )
        asked = models.DescribeRouteEntryListRequest(region_id=REGION, route_table_id=TABLE, route_entry_type="Custom")
        (entry,) = cloud.describe_route_entry_list(asked).body.route_entrys.route_entry
        assert (entry.route_entry_id, entry.status, entry.description) == (made, "Available", text)
        assert entry.next_hops.next_hop[0].next_hop_id == "i-nexthop"
        cloud.delete_route_entry(models.DeleteRouteEntryRequest(region_id=REGION, route_entry_id=made))
        assert not cloud.describe_route_entry_list(asked).body.route_entrys.route_entry

    beside(client)


@pytest.mark.parametrize("algorithm", [None, "v2"], ids=["ACS3", "RPC-v1"])
def test_the_tea_sdk_sends_a_batch_and_reads_each_failure(algorithm: str | None) -> None:
    def client(here: Running) -> None:
        wishes = [
            models.CreateRouteEntriesRequestRouteEntries(
                route_table_id=TABLE, dst_cidr_block=cidr, next_hop="i-host", next_hop_type="Instance"
            )
            for cidr in ("10.1.0.0/16", "10.2.0.0/16", "172.18.1.0/25")
        ]
        request = models.CreateRouteEntriesRequest(region_id=REGION, route_entries=wishes)
        told = tea(here, algorithm).create_route_entries(request).body
        assert (told.success_count, told.failed_count) == (2, 1)
        assert told.failed_route_entries[0].failed_code == "InvalidCidrBlock"

    beside(client)


@pytest.mark.parametrize("algorithm", [None, "v2"], ids=["ACS3", "RPC-v1"])
def test_the_tea_sdk_is_told_by_the_clouds_codes_what_is_wrong(algorithm: str | None) -> None:
    def code(here: Running, keys: Keys, table: str) -> str:
        request = models.DescribeRouteEntryListRequest(region_id=REGION, route_table_id=table)
        with pytest.raises(Exception, match=r".") as caught:
            tea(here, algorithm, keys).describe_route_entry_list(request)
        return str(getattr(caught.value, "code", ""))

    def client(here: Running) -> None:
        assert code(here, KEY, "vtb-none") == "InvalidRouteTable.NotFound"
        assert code(here, Keys("LTAI-nobody", "x"), TABLE) == "InvalidAccessKeyId.NotFound"
        assert code(here, Keys(KEY.key_id, "wrong"), TABLE) == "SignatureDoesNotMatch"
        assert code(here, Keys(KEY.key_id, KEY.secret, "token"), TABLE).startswith("InvalidSecurityToken")

    beside(client)


def test_the_tea_sdk_lists_the_vpc_in_all_its_ways() -> None:
    def client(here: Running) -> None:
        cloud = tea(here, None)
        (vpc,) = cloud.describe_vpcs(models.DescribeVpcsRequest(region_id=REGION)).body.vpcs.vpc
        one = models.DescribeVpcAttributeRequest(region_id=REGION, vpc_id=vpc.vpc_id)
        assert cloud.describe_vpc_attribute(one).body.cidr_block == vpc.cidr_block
        vswitches = cloud.describe_vswitches(models.DescribeVSwitchesRequest(region_id=REGION)).body.v_switches
        assert {each.route_table.route_table_id for each in vswitches.v_switch} == {TABLE, "vtb-other"}
        listed = cloud.describe_route_table_list(models.DescribeRouteTableListRequest(region_id=REGION)).body
        assert len(listed.router_table_list.router_table_list_type) == 3
        router = cloud.describe_vrouters(models.DescribeVRoutersRequest(region_id=REGION)).body.vrouters.vrouter[0]
        older = models.DescribeRouteTablesRequest(region_id=REGION, vrouter_id=router.vrouter_id)
        assert len(cloud.describe_route_tables(older).body.route_tables.route_table) == 3

    beside(client)


POP_CORE = """
const { RPCClient } = require('@alicloud/pop-core');
const [endpoint, accessKeyId, accessKeySecret] = process.argv.slice(2);
async function main() {
  const found = [];
  for (const [version, method] of [['2016-04-28', 'POST'], ['2016-04-28', 'GET'], ['2014-05-26', 'POST']]) {
    const cloud = new RPCClient({ endpoint, accessKeyId, accessKeySecret, apiVersion: version });
    const call = (action, params) => cloud.request(action, { RegionId: 'cn-shenzhen', ...params }, { method });
    const made = await call('CreateRouteEntry', {
      RouteTableId: 'vtb-system', DestinationCidrBlock: '10.1.0.0/16', NextHopId: 'i-host',
      Description: "~ * + / é '" });
    const shown = await call('DescribeRouteEntryList', { RouteTableId: 'vtb-system', RouteEntryType: 'Custom' });
    await call('DeleteRouteEntry', { RouteEntryId: made.RouteEntryId });
    const batch = await call('CreateRouteEntries', { RouteEntries: ['10.2.0.0/16', '172.18.1.0/25'].map((cidr) => (
      { RouteTableId: 'vtb-system', DstCidrBlock: cidr, NextHop: 'i-host', NextHopType: 'Instance' })) });
    await call('DeleteRouteEntries', { RouteEntries: batch.RouteEntryIds.map((id) => (
      { RouteTableId: 'vtb-system', RouteEntryId: id })) });
    let refused = '';
    try { await call('DescribeRouteEntryList', { RouteTableId: 'vtb-none' }); } catch (error) { refused = error.code; }
    const entry = shown.RouteEntrys.RouteEntry[0];
    found.push([entry.Status, entry.Description, batch.SuccessCount, batch.FailedCount, refused]);
  }
  console.log(JSON.stringify(found));
}
main().catch((error) => { console.error(String(error)); process.exit(1); });
"""


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which node finds @alicloud/pop-core."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("NOT TRIED: @alicloud/pop-core, since node or npm is not installed")
    home = tmp_path_factory.mktemp("npm")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "@alicloud/pop-core@1.8.0"],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "npm_config_cache": str(home / "cache"), "npm_config_update_notifier": "false"},
    )
    if done.returncode:
        pytest.skip(f"NOT TRIED: @alicloud/pop-core, since npm cannot install it: {done.stderr.strip()[-300:]}")
    return home


def test_pop_core_signs_and_spells_as_the_cloud_wants_it(node_modules: Path) -> None:
    (node_modules / "client.js").write_text(POP_CORE)

    def client(here: Running) -> None:
        done = subprocess.run(
            ["node", "client.js", f"http://{here.api}", KEY.key_id, KEY.secret],
            cwd=node_modules,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == 0, done.stderr
        wanted = ["Available", "~ * + / é '", 1, 1, "InvalidRouteTable.NotFound"]
        assert json.loads(done.stdout) == [wanted] * 3

    beside(client)
