"""Several people and unreliable networks: ETags, dry runs, pages, waiting; all over TLS."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from appliance.status import Layer, LayerState

from .conftest import Answer, Appliance

PODS = "/v1/cidrs/10.244.0.0/16"
BODY = {"cidr": "10.244.0.0/16"}


@pytest.fixture
def token(joined: Appliance) -> str:
    return joined.token()


def test_the_etag_stands_for_what_was_asked_for(joined: Appliance, token: str) -> None:
    made = joined.remote("POST", "/v1/cidrs", token, BODY)
    tag = made.headers["etag"]
    assert tag == f'"{made.json["etag"]}"'
    joined.kernel.now = Layer(LayerState.ERROR, "no", "kernel")  # how far it is does not count
    assert joined.remote("GET", PODS, token).headers["etag"] == tag
    changed = joined.remote("PATCH", PODS, token, {"comment": "x"}, If_Match=tag)
    assert changed.status == 200
    assert changed.headers["etag"] != tag
    assert (
        joined.remote("PATCH", PODS, token, {"comment": "y"}, If_Match='"other", ' + changed.headers["etag"]).status
        == 200
    )
    assert joined.remote("PATCH", PODS, token, {"comment": "z"}, If_Match="*").status == 200


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"comment": "x"}), ("PUT", {"comment": "x"}), ("DELETE", None)])
@pytest.mark.parametrize("tag", ['"0123456789abcdef"', "W/{}", "nonsense", ""])
def test_another_state_than_the_one_seen_is_not_changed(
    joined: Appliance, token: str, method: str, body: Any, tag: str
) -> None:
    made = joined.remote("POST", "/v1/cidrs", token, BODY)
    count = len(joined.changes)
    answer = joined.remote(method, PODS, token, body, If_Match=tag.format(made.headers["etag"]))
    assert (answer.status, answer.json["code"]) == (412, "etag-mismatch")
    assert made.json["etag"] in answer.json["reasons"][0]["next_step"]
    assert joined.remote("GET", PODS, token).json["etag"] == made.json["etag"]
    assert len(joined.changes) == count


def test_of_two_clients_at_once_one_gets_412_and_nothing_is_lost(joined: Appliance, token: str) -> None:
    tag = joined.remote("POST", "/v1/cidrs", token, BODY).headers["etag"]
    answers: list[Answer] = []
    ready = threading.Barrier(8)

    def change(name: str) -> None:
        ready.wait()
        answers.append(joined.remote("PATCH", PODS, token, {"comment": name}, If_Match=tag))

    threads = [threading.Thread(target=change, args=(f"client {number}",)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(each.status for each in answers) == [200] + [412] * 7
    (won,) = (each.json["comment"] for each in answers if each.status == 200)
    assert joined.remote("GET", PODS, token).json["comment"] == won


def test_put_makes_and_replaces_and_can_be_told_not_to(joined: Appliance, token: str) -> None:
    assert joined.remote("PUT", PODS, token, {}, If_Match="*").status == 412
    assert joined.remote("PUT", PODS, token, {"comment": "a", "snat": False}).status == 201
    replaced = joined.remote("PUT", PODS, token, {"probe": "icmp:10.244.0.1"})
    assert replaced.status == 200
    assert (replaced.json["comment"], replaced.json["snat"], replaced.json["probe"]) == ("", True, "icmp:10.244.0.1")
    assert joined.remote("PUT", PODS, token, {}, If_None_Match="*").json["code"] == "etag-mismatch"
    assert joined.remote("PUT", "/v1/cidrs/0.0.0.0/0", token, {}).json["code"] == "cidr-refused"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_dry_run_changes_nothing_and_says_what_would_be_done(joined: Appliance, token: str, method: str) -> None:
    there = method in {"PATCH", "DELETE"}
    if there:
        joined.remote("POST", "/v1/cidrs", token, BODY)
    before, count = joined.remote("GET", "/v1/cidrs", token).json, len(joined.changes)
    target = "/v1/cidrs?dry_run=true" if method == "POST" else f"{PODS}?dry_run=true"
    body = {"POST": BODY, "DELETE": None}.get(method, {"comment": "would be"})
    answer = joined.remote(method, target, token, body)
    assert answer.status in {200, 202}
    assert answer.json["plan"]
    assert joined.remote("GET", "/v1/cidrs", token).json == before
    assert len(joined.changes) == count


def test_a_dry_run_refuses_what_would_be_refused(joined: Appliance, token: str) -> None:
    answer = joined.remote("POST", "/v1/cidrs?dry_run=true", token, {"cidr": "172.18.0.0/16"})
    assert (answer.status, answer.json["code"]) == (422, "cidr-refused")


def test_a_list_comes_in_pages(joined: Appliance, token: str) -> None:
    for number in range(5):
        joined.remote("POST", "/v1/cidrs", token, {"cidr": f"10.{number}.0.0/16"})
    seen, cursor = [], ""
    while True:
        page = joined.remote("GET", f"/v1/cidrs?limit=2{cursor}", token).json
        seen += [each["cidr"] for each in page["cidrs"]]
        if page["next"] is None:
            break
        joined.remote("DELETE", f"/v1/cidrs/{page['next']}", token)  # what is gone is no obstacle
        cursor = f"&cursor={page['next']}"
    assert seen == [f"10.{number}.0.0/16" for number in range(5)]
    assert joined.remote("GET", "/v1/cidrs?cursor=nonsense", token).json["code"] == "bad-cidr"


def test_waiting_ends_when_it_is_carried_or_will_not_be_or_the_time_is_over(joined: Appliance, token: str) -> None:
    assert joined.remote("POST", "/v1/cidrs?wait=30", token, BODY).status == 201
    joined.kernel.now = Layer(LayerState.ERROR, "no", "kernel")
    failed = joined.remote("PUT", f"{PODS}?wait=30", token, {})
    assert failed.json["layers"]["kernel"]["state"] == "error"
    joined.kernel.now = Layer(LayerState.PENDING, "soon", "pending")
    over = joined.remote("PUT", f"{PODS}?wait=0.2", token, {})
    assert over.json["layers"]["kernel"]["state"] == "pending"
    timer = threading.Timer(0.3, lambda: setattr(joined.kernel, "now", Layer(LayerState.OK, "")))
    timer.start()
    done = joined.remote("PUT", f"{PODS}?wait=30", token, {})
    timer.join()
    assert done.json["layers"]["kernel"]["state"] == "ok"
    assert joined.remote("PUT", f"{PODS}?wait=31", token, {}).status == 422
