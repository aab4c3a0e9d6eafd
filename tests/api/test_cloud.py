"""What the operator asks of the cloud: nothing is changed by looking, and nothing foreign without being named."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network

import pytest

from appliance.adopt import NotAdoptable
from cloud.provider import CloudError, Denied, Duplicate, Owner, Rejected, Throttled, Unavailable
from tests.appliance.fakes import POD, SERVICE, entry

from .conftest import Appliance, Cli
from .test_cidrs import post, refused

PODS = str(POD)


def test_the_plan_says_what_each_table_would_get_and_sends_nothing(joined: Appliance, cli: Cli) -> None:
    post(joined, cidr=PODS)
    joined.cloud.real.entries = [entry(POD, "vtb-1"), entry(SERVICE, "vtb-2")]
    plan = joined.daemon.get("/v1/plan")
    assert [(each["action"], each["cidr"], each["table"]) for each in plan["changes"]] == [
        ("create", PODS, "vtb-2"),
        ("stray", str(SERVICE), "vtb-2"),
    ]
    assert [(each["table"], each["ours"], each["free"]) for each in plan["tables"]] == [
        ("vtb-1", 1, 199),
        ("vtb-2", 1, 199),
    ]
    assert joined.cloud.real.did == []
    done = cli("plan")
    assert f"create {PODS} in vtb-2: an entry to this instance is made (now: no entry)" in done.stdout
    assert json.loads(cli("plan", "--json").stdout) == plan


def test_the_plan_shows_what_tables_that_are_programmed_no_more_still_hold(joined: Appliance) -> None:
    post(joined, cidr=PODS)
    joined.cloud.real.entries = [entry(POD, "vtb-1"), entry(POD, "vtb-2")]
    joined.cloud.real.elsewhere = [entry(POD, "vtb-9"), entry(SERVICE, "vtb-9")]

    def changes() -> list[tuple[str, str, str]]:
        return [(each["action"], each["cidr"], each["table"]) for each in joined.daemon.get("/v1/plan")["changes"]]

    assert changes() == [("stray", str(SERVICE), "vtb-9"), ("stray", PODS, "vtb-9")]
    joined.daemon.request("DELETE", f"/v1/cidrs/{PODS}")
    assert ("delete", PODS, "vtb-9") in changes()


def test_an_empty_plan_and_exact_aggregates(joined: Appliance, cli: Cli) -> None:
    assert "nothing to change" in cli("plan").stdout
    for cidr in ("10.2.0.0/24", "10.2.1.0/24", "10.9.0.0/24"):
        post(joined, cidr=cidr)
    found = joined.daemon.get("/v1/plan")["aggregates"]
    assert found == [{"cidr": "10.2.0.0/23", "parts": ["10.2.0.0/24", "10.2.1.0/24"]}]


def test_the_doctor_looks_at_what_is_asked_for(joined: Appliance, cli: Cli) -> None:
    post(joined, cidr=PODS)
    answer = joined.daemon.get("/v1/doctor")
    assert answer == {"verdict": "ok", "findings": [{"code": "wanted", "state": "ok", "text": PODS, "fix": ""}]}
    assert cli("doctor").stdout == f"ok      wanted: {PODS}\n"
    assert json.loads(cli("ram-policy").stdout)["Version"] == "1"


def test_adopting_needs_a_cidr_that_was_asked_for(joined: Appliance, cli: Cli) -> None:
    joined.cloud.real.entries = [entry(POD, "vtb-1", Owner.FOREIGN, "i-other")]
    assert refused(joined, "POST", f"/v1/cidrs/{PODS}/adopt")["code"] == "cidr-unknown"
    post(joined, cidr=PODS)
    assert cli("cidr", "adopt", PODS).stdout == f"{PODS}: adopted\n"
    assert joined.cloud.real.did == [("adopt", POD)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotAdoptable("not-carried", "the kernel does not carry it"), 409, "not-adoptable"),
        (Duplicate("taken"), 409, "foreign-entry"),
        (Rejected("nothing to adopt"), 422, "cloud-rejected"),
        (Denied("no", code="Forbidden.RAM", request_id="R-1"), 502, "cloud-denied"),
        (Throttled("slow down"), 503, "cloud-throttled"),
        (Unavailable("no answer"), 503, "cloud-unavailable"),
    ],
)
def test_each_refusal_of_the_cloud_has_its_status(joined: Appliance, error: Exception, status: int, code: str) -> None:
    post(joined, cidr=PODS)
    joined.cloud.refusal = error
    problem = refused(joined, "POST", f"/v1/cidrs/{PODS}/adopt")
    assert (problem["status"], problem["code"]) == (status, code)
    if isinstance(error, CloudError):
        assert error.request_id in problem["detail"]


def test_only_a_stray_is_removed_as_one(joined: Appliance, cli: Cli) -> None:
    assert refused(joined, "DELETE", f"/v1/strays/{PODS}")["code"] == "stray-unknown"
    joined.cloud.state = replace(joined.cloud.state, strays=(POD,))
    assert cli("stray", "rm", PODS).stdout == f"{PODS}: leaving\n"
    with joined.store() as store:
        assert store.released() == {POD}


def test_before_the_cloud_was_found_the_answer_says_so(joined: Appliance) -> None:
    joined.cloud.found = False
    for target in ("/v1/plan", "/v1/doctor", "/v1/ram-policy"):
        problem = refused(joined, "GET", target)
        assert (problem["status"], problem["code"]) == (503, "cloud-unavailable")


def test_a_more_specific_entry_of_somebody_else_is_a_warning_on_the_cidr(joined: Appliance) -> None:
    joined.cloud.real.entries = [entry(ip_network("10.244.3.0/24"), "vtb-1", Owner.FOREIGN, "i-node")]
    _, made = post(joined, cidr=PODS)
    assert [warning["code"] for warning in made["warnings"]] == ["shadowed"]
    assert "10.244.3.0/24 to i-node" in made["warnings"][0]["text"]
