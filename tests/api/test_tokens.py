from __future__ import annotations

import json

import pytest

from api.client import Refused

from .conftest import Appliance


def test_a_token_is_shown_once_listed_without_its_text_and_removed(appliance: Appliance) -> None:
    status, made = appliance.daemon.request("POST", "/v1/tokens", {"name": "grafana", "expires_days": 30})
    assert status == 201
    assert made["scope"] == "read"
    assert made["expires"] - made["created"] == 30 * 86400
    listed = appliance.daemon.get("/v1/tokens")
    assert [each["name"] for each in listed["tokens"]] == ["grafana"]
    history = appliance.daemon.get("/v1/history")
    assert made["token"] not in json.dumps([listed, history])
    assert [event["what"] for event in history["events"]] == ["token added"]
    appliance.daemon.request("DELETE", "/v1/tokens/grafana")
    assert appliance.daemon.get("/v1/tokens") == {"tokens": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "-x"},
        {"name": "a" * 33},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "a", "scope": "root"},
        {"name": "a", "expires_days": 0},
        {"name": "a", "expires_days": -1},
        {"name": "a", "expires_days": 1e9},
        {"name": "a", "expires_days": "many"},
        {"name": "a", "expires_days": True},
        {"name": "a", "token": "nht_mine"},
    ],
)
def test_a_bad_token_is_refused_and_nothing_is_made(refusing: Appliance, body: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        refusing.daemon.request("POST", "/v1/tokens", body)
    assert caught.value.problem["status"] == 422
    assert refusing.daemon.get("/v1/tokens") == {"tokens": []}


def test_a_name_is_taken_once(appliance: Appliance) -> None:
    appliance.token(name="ci")
    with pytest.raises(Refused) as caught:
        appliance.token(name="ci")
    assert caught.value.code == "token-exists"
    with pytest.raises(Refused) as caught:
        appliance.daemon.request("DELETE", "/v1/tokens/other")
    assert caught.value.code == "token-not-there"


def test_the_socket_needs_none(appliance: Appliance) -> None:
    session = appliance.daemon.get("/v1/session")
    assert (session["scope"], session["via"]) == ("write", "unix")
