from __future__ import annotations

import os

import pytest

from api.client import Refused
from tests.api.conftest import Appliance


def test_changes_and_repairs_are_listed_newest_first(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    joined.daemon.request("DELETE", "/v1/cidrs/10.244.0.0%2F16")
    events = joined.daemon.get("/v1/history")["events"]
    assert [(event["who"], event["what"], event["cidr"]) for event in events] == [
        (f"uid {os.getuid()}", "removed", "10.244.0.0/16"),
        (f"uid {os.getuid()}", "added", "10.244.0.0/16"),
    ]
    assert len(joined.daemon.get("/v1/history?limit=1")["events"]) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many"])
def test_a_limit_that_makes_no_sense_is_refused(appliance: Appliance, limit: str) -> None:
    with pytest.raises(Refused):
        appliance.daemon.get(f"/v1/history?limit={limit}")
