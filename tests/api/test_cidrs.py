from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.client import Refused
from api.parts import Parts
from appliance.model import parse_cidr
from appliance.status import CloudStatus, Layer, LayerState, Problem

from .conftest import TOKEN, VPC, Appliance

PODS = "10.244.0.0/16"


def post(appliance: Appliance, **body: object) -> tuple[int, dict[str, Any]]:
    return appliance.daemon.request("POST", "/v1/cidrs", body)


def refused(appliance: Appliance, method: str, target: str, body: object = None) -> dict[str, Any]:
    with pytest.raises(Refused) as caught:
        appliance.daemon.request(method, target, body)
    problem = caught.value.problem
    assert problem["type"] == f"urn:nexthop:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_a_cidr_is_asked_for_shown_and_listed(joined: Appliance) -> None:
    status, made = post(joined, cidr=PODS, comment="pods")
    assert status == 201
    assert made["cidr"] == PODS
    assert made["via"] == "hk"
    assert made["snat"] is True
    assert made["comment"] == "pods"
    assert made["phase"] == "present"
    assert made["created_at"] > 0
    assert made["layers"]["kernel"] == {"state": "ok", "detail": "", "code": ""}
    assert made["warnings"] == []
    assert joined.daemon.get(f"/v1/cidrs/{PODS}") == made
    assert joined.daemon.get("/v1/cidrs") == {"cidrs": [made], "next": None}


def test_a_v6_cidr_is_addressed_by_its_path_as_well(joined: Appliance) -> None:
    post(joined, cidr="2001:db8:244::/48")
    assert joined.daemon.get("/v1/cidrs/2001:db8:244::/48")["cidr"] == "2001:db8:244::/48"


def test_asking_twice_is_no_error_and_changes_nothing(joined: Appliance) -> None:
    _, first = post(joined, cidr=PODS, comment="pods")
    changes = len(joined.changes)
    for again in ({"cidr": PODS}, {"cidr": PODS, "via": "hk", "snat": True, "comment": "pods"}):
        status, second = post(joined, **again)
        assert status == 200
        assert second == first
    assert len(joined.changes) == changes


@pytest.mark.parametrize("other", [{"via": "sg"}, {"snat": False}, {"comment": "other"}])
def test_asking_for_the_same_cidr_otherwise_is_a_conflict(joined: Appliance, other: dict[str, Any]) -> None:
    _, first = post(joined, cidr=PODS)
    problem = refused(joined, "POST", "/v1/cidrs", {"cidr": PODS, **other})
    assert problem["status"] == 409
    assert problem["code"] == "cidr-exists"
    assert problem["reasons"][0]["code"] == f"{next(iter(other))}-differs"
    assert joined.daemon.get(f"/v1/cidrs/{PODS}") == first


REFUSED = [
    ("10.244.0.0/33", "bad-cidr"),
    ("nonsense", "bad-cidr"),
    ("", "bad-cidr"),
    ("10.244.0.1/16", "bad-cidr"),  # host bits
    ("10.244.0.0", "bad-cidr"),
    ("0.0.0.0/0", "default-route"),
    ("::/0", "default-route"),
    ("172.18.0.0/16", "contains-vpc"),
    ("172.16.0.0/12", "contains-vpc"),
    ("172.18.1.0/24", "overlaps-vswitch"),
    ("172.18.1.128/25", "overlaps-vswitch"),
    ("172.18.0.0/20", "overlaps-vswitch"),
    ("100.100.100.200/32", "metadata"),
    ("100.64.0.0/10", "reserved"),
    ("203.0.113.10/32", "tunnel-server"),
    ("203.0.113.0/24", "tunnel-server"),
    ("100.64.240.0/24", "tunnel-subnet"),
    ("127.0.0.0/8", "loopback"),
    ("224.0.0.0/4", "multicast"),
]


@pytest.mark.parametrize(("cidr", "code"), REFUSED)
def test_what_may_not_be_is_refused_with_a_reason_and_changes_nothing(
    refusing: Appliance, cidr: str, code: str
) -> None:
    changes = len(refusing.changes)
    problem = refused(refusing, "POST", "/v1/cidrs", {"cidr": cidr})
    assert problem["status"] == 422
    assert problem["code"] == ("bad-cidr" if code == "bad-cidr" else "cidr-refused")
    assert code in [reason["code"] for reason in problem["reasons"]]
    assert all(reason["text"] and reason["next_step"] for reason in problem["reasons"])
    assert refusing.cidrs() == []
    assert len(refusing.changes) == changes


def test_host_bits_are_answered_with_the_cidr_that_was_meant(refusing: Appliance) -> None:
    (reason,) = refused(refusing, "POST", "/v1/cidrs", {"cidr": "10.244.3.1/16"})["reasons"]
    assert "10.244.0.0/16" in reason["next_step"]


def test_inside_the_vpc_and_in_no_vswitch_is_allowed_with_a_warning(joined: Appliance) -> None:
    status, made = post(joined, cidr="172.18.128.0/20")
    assert status == 201
    assert [warning["code"] for warning in made["warnings"]] == ["inside-vpc"]
    assert joined.daemon.get("/v1/cidrs/172.18.128.0/20")["warnings"] == made["warnings"]


SILENT = CloudStatus("aliyun", error=Problem("cloud-unavailable", "no answer", "it is tried again"))


def test_as_long_as_the_cloud_is_silent_a_new_cidr_waits_unless_it_is_forced(joined: Appliance) -> None:
    joined.cloud.around, joined.cloud.state = None, SILENT
    for method, target, body in (("POST", "/v1/cidrs", {"cidr": PODS}), ("PUT", f"/v1/cidrs/{PODS}", {})):
        problem = refused(joined, method, target, body)
        assert (problem["status"], problem["code"]) == (503, "vpc-unknown")
        assert "force" in problem["reasons"][0]["next_step"]
    assert joined.cidrs() == []
    assert refused(joined, "POST", "/v1/cidrs", {"cidr": "127.0.0.0/8"})["status"] == 422  # what nobody need wait for
    status, made = post(joined, cidr=PODS, force=True)
    assert status == 201
    assert [warning["code"] for warning in made["warnings"]] == ["vpc-unknown"]


def test_what_is_there_can_be_changed_and_asked_for_again_while_the_cloud_is_silent(joined: Appliance) -> None:
    post(joined, cidr=PODS)
    joined.cloud.around, joined.cloud.state = None, SILENT
    assert post(joined, cidr=PODS)[0] == 200
    _, changed = joined.daemon.request("PATCH", f"/v1/cidrs/{PODS}", {"comment": "x"})
    assert [warning["code"] for warning in changed["warnings"]] == ["vpc-unknown"]
    assert joined.daemon.request("PUT", f"/v1/cidrs/{PODS}", {"snat": False})[0] == 200


def test_a_daemon_that_has_just_started_lets_a_cidr_wait_for_the_clouds_first_answer(joined: Appliance) -> None:
    joined.cloud.around = None
    timer = threading.Timer(0.2, lambda: setattr(joined.cloud, "around", VPC))
    timer.start()
    status, made = post(joined, cidr=PODS)
    timer.join()
    assert status == 201
    assert made["warnings"] == []


def test_without_a_link_there_is_no_way(appliance: Appliance) -> None:
    problem = refused(appliance, "POST", "/v1/cidrs", {"cidr": PODS})
    assert [reason["code"] for reason in problem["reasons"]] == ["no-link"]
    problem = refused(appliance, "POST", "/v1/cidrs", {"cidr": PODS, "via": "hk"})
    assert [reason["code"] for reason in problem["reasons"]] == ["link-unknown"]


def test_with_several_links_one_has_to_be_named(joined: Appliance) -> None:
    joined.parts.links.join("sg", TOKEN)
    problem = refused(joined, "POST", "/v1/cidrs", {"cidr": PODS})
    assert [reason["code"] for reason in problem["reasons"]] == ["via-missing"]
    assert post(joined, cidr=PODS, via="sg")[1]["via"] == "sg"
    problem = refused(joined, "POST", "/v1/cidrs", {"cidr": "10.244.1.0/24", "via": "hk"})
    assert [reason["code"] for reason in problem["reasons"]] == ["other-link"]


def test_a_removed_cidr_leaves_and_a_second_delete_is_no_error(joined: Appliance) -> None:
    post(joined, cidr=PODS)
    status, left = joined.daemon.request("DELETE", f"/v1/cidrs/{PODS}")
    assert status == 202
    assert left["phase"] == "leaving"
    assert joined.daemon.request("DELETE", f"/v1/cidrs/{PODS}")[0] == 202


def test_a_leaving_cidr_can_be_asked_for_again(joined: Appliance) -> None:
    post(joined, cidr=PODS)
    joined.daemon.request("DELETE", f"/v1/cidrs/{PODS}")
    status, made = post(joined, cidr=PODS, snat=False)
    assert status == 201
    assert made["phase"] == "present"
    assert made["snat"] is False


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_cidr_is_a_404(refusing: Appliance, method: str) -> None:
    problem = refused(refusing, method, f"/v1/cidrs/{PODS}")
    assert problem["status"] == 404
    assert problem["code"] == "cidr-unknown"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["nonsense", "10.244.0.1/16", "", "..%2f..%2fetc", "%00", "x" * 5000])
def test_a_path_that_is_no_cidr_is_refused_too(refusing: Appliance, method: str, path: str) -> None:
    problem = refused(refusing, method, f"/v1/cidrs/{path}")
    assert problem["status"] == 422
    assert problem["code"] == "bad-cidr"
    assert len(problem["detail"]) < 500


def test_a_comment_is_one_line_of_plain_text(refusing: Appliance) -> None:
    for comment in ("two\nlines", "\x1b[31mred", "\x00", "x" * 201):
        problem = refused(refusing, "POST", "/v1/cidrs", {"cidr": PODS, "comment": comment})
        assert problem["code"] == "invalid-request"
    assert refusing.cidrs() == []


def test_layers_say_how_far_they_are(joined: Appliance) -> None:
    joined.cloud.now = Layer(LayerState.ERROR, "an entry of somebody else is in the way", "foreign-entry")
    _, made = post(joined, cidr=PODS)
    assert made["layers"]["kernel"]["state"] == "ok"
    assert made["layers"]["cloud"] == {
        "state": "error",
        "detail": "an entry of somebody else is in the way",
        "code": "foreign-entry",
    }


def test_a_store_that_cannot_be_read_is_said_and_the_daemon_lives_on(joined: Appliance) -> None:
    post(joined, cidr=PODS)
    database = joined.state / "nexthop.db"
    whole = database.read_bytes()
    database.write_bytes(b"this is no database" * 1000)
    for method, target, body in [
        ("GET", "/v1/cidrs", None),
        ("POST", "/v1/cidrs", {"cidr": "10.96.0.0/16"}),
        ("DELETE", f"/v1/cidrs/{PODS}", None),
    ]:
        problem = refused(joined, method, target, body)
        assert problem["status"] == 503
        assert problem["code"] == "store-unavailable"
    database.write_bytes(whole)
    assert [each["cidr"] for each in joined.daemon.get("/v1/cidrs")["cidrs"]] == [PODS]


def test_two_who_ask_at_once_get_one_record(joined: Appliance) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(joined, cidr=PODS)[0], range(8)))
    assert sorted(answers) == [200] * 7 + [201]
    assert joined.cidrs() == [str(parse_cidr(PODS))]


def test_parts_hold_no_secret(joined: Appliance) -> None:
    assert isinstance(joined.parts, Parts)
    assert "key" not in repr(joined.parts.links.all())
