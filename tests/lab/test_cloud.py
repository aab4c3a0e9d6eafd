"""What somebody does in the cloud's console, and what the appliance makes of it; two route tables, one command."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import probes, topology
from tests.lab.lab import Lab
from tests.lab.programs import INSTANCE, LINK, MORE_TABLE, TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.lab

CIDR = topology.POD_CIDR


def entries(lab: Lab) -> dict[str, Mapping[str, str]]:
    """Return the entry for the pods of each table, as the cloud's API lists it."""
    return {entry["table"]: entry for entry in lab.cloud_table() if entry["destination"] == CIDR}


def console(lab: Lab, **action: str) -> Any:
    """Do what a person does in the cloud's console."""
    url = f"http://{topology.CLOUD_API}/_emulator/console"
    told = lab["vrouter"].run("curl", "-sSf", "-d", json.dumps(action), url).stdout
    return json.loads(told)


def events(lab: Lab, what: str) -> list[str]:
    """Return the lines of history of one kind."""
    path = lab.place("appliance") / "state" / "nexthop.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        rows = db.execute("SELECT detail FROM history WHERE what = ? AND cidr = ?", (what, CIDR)).fetchall()
    db.close()
    return [detail for (detail,) in rows]


def cloud_layer(lab: Lab) -> Mapping[str, str]:
    (found,) = [each for each in lab.api("GET", "/v1/cidrs")["cidrs"] if each["cidr"] == CIDR]
    return dict(found["layers"]["cloud"])


def test_hosts_on_two_route_tables_reach_the_pods_after_one_command(joined_lab: Lab) -> None:
    joined_lab.nexthop("cidr", "rm", CIDR, "--timeout", "30")
    assert entries(joined_lab) == {}
    joined_lab.nexthop("cidr", "add", CIDR, "--via", LINK, "--timeout", "30")
    assert {table: entry["next_hop"] for table, entry in entries(joined_lab).items()} == {
        TABLE: INSTANCE,
        MORE_TABLE: INSTANCE,
    }
    for host in ("host1", "host3"):
        probes.ping(joined_lab[host], topology.PODS["pod1"], count=1)
        assert probes.curl(joined_lab[host], topology.PODS["pod2"]).pod == "pod2"


def test_an_entry_deleted_in_the_console_comes_back_and_is_in_the_history_as_drift(joined_lab: Lab) -> None:
    before = len(events(joined_lab, "drift"))
    gone = entries(joined_lab)[MORE_TABLE]["id"]
    console(joined_lab, Action="DeleteRouteEntry", RouteEntryId=gone)
    joined_lab.wait("the entry", lambda: entries(joined_lab).get(MORE_TABLE, {"id": gone})["id"] != gone)
    joined_lab.wait("the CIDR", lambda: cloud_layer(joined_lab)["state"] == "ok")
    drift = events(joined_lab, "drift")
    assert len(drift) == before + 1
    assert f"{MORE_TABLE}: none" in drift[-1]
    probes.ping(joined_lab["host3"], topology.PODS["pod1"], count=1)


def test_an_entry_pointed_elsewhere_in_the_console_is_a_conflict_until_it_is_adopted(joined_lab: Lab) -> None:
    ours = entries(joined_lab)[MORE_TABLE]["id"]
    console(joined_lab, Action="ModifyRouteEntry", RouteEntryId=ours, NewNextHopType="Instance", NewNextHopId="i-host1")
    joined_lab.wait("the conflict", lambda: cloud_layer(joined_lab)["code"] == "changed-by-hand")
    assert "i-host1" in events(joined_lab, "conflict")[-1]
    joined_lab.api("POST", "/v1/cidrs", {"cidr": CIDR, "via": LINK})  # a wish that is there already changes nothing
    plan = joined_lab.api("GET", "/v1/plan")
    assert [(change["action"], change["table"]) for change in plan["changes"]] == [("blocked", MORE_TABLE)]
    assert entries(joined_lab)[MORE_TABLE]["next_hop"] == "i-host1"
    probes.ping(joined_lab["host1"], topology.PODS["pod1"], count=1)  # the other table is as it was
    joined_lab.nexthop("cidr", "adopt", CIDR)
    joined_lab.wait("the CIDR", lambda: cloud_layer(joined_lab)["state"] == "ok")
    back = entries(joined_lab)[MORE_TABLE]
    assert (back["id"], back["next_hop"]) == (ours, INSTANCE)
    probes.ping(joined_lab["host3"], topology.PODS["pod1"], count=1)


def test_the_doctor_finds_nothing_that_fails_and_the_plan_nothing_to_do(joined_lab: Lab) -> None:
    answer = joined_lab.api("GET", "/v1/doctor")
    assert [each for each in answer["findings"] if each["state"] == "fail"] == []
    assert {each["code"]: each["state"] for each in answer["findings"]}["clock"] == "ok"
    assert joined_lab.api("GET", "/v1/plan")["changes"] == []
