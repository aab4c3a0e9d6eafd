"""The API's document, held against the running daemon: schemathesis sends what it allows, and what it forbids."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.tunnel.token import JoinToken, encode
from tests.lab import cautious, topology
from tests.lab.lab import Lab
from tests.lab.programs import API_PORT
from tests.lab.space import ROOT

pytestmark = pytest.mark.lab

SECONDS: Final = 600 if os.environ.get("NEXTHOP_SOAK") == "1" else 60
METHODS: Final = {"get", "put", "post", "patch", "delete"}
JOIN_TOKEN: Final = encode(JoinToken(topology.GTUND_EIP, 9443, "cGluLXBpbi1waW4=", "shenzhen", "c2VjcmV0LXNlY3JldA"))
# Who was refused before the router of the resource was asked says nothing about that.
NOT_THE_ROUTER: Final = {401, 403, 405, 408, 421, 429, None}
# The token is in a file of root's, where a command line would show it to everybody. What a schema cannot say (that a
# CIDR overlaps the VPC) may be refused; who is refused without a token, ever more slowly, is a test of its own
# (tests/api/test_access.py); and a CIDR that is deleted (202) is there until cloud and kernel have let go of it.
CONFIGURATION: Final = """\
hooks = "{hooks}"
headers = {{ Authorization = "Bearer {token}" }}
tls-verify = "{certificate}"
max-time = {seconds}
rate-limit = "90/s"
request-timeout = 60
suppress-health-check = ["all"]
warnings = false
cache.enabled = false
reports.ndjson = {{ enabled = true, path = "{report}" }}

[checks]
positive_data_acceptance.enabled = false
missing_required_header.enabled = false
ignored_auth.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false

# What is there, and what may come and go: nobody guesses such things.
[dictionaries]
names.values = ["hk", "spare", "grafana"]
cidrs.values = ["10.240.0.0/16", "10.241.0.0/16", "10.242.0.0/17", "fd00:10::/64"]
tokens.values = ["{join_token}"]

[parameters]
"path.name" = {{ dictionary = "names", probability = 0.3 }}
"path.cidr" = {{ dictionary = "cidrs", probability = 0.5 }}
"body.name" = {{ dictionary = "names", probability = 0.3 }}
"body.cidr" = {{ dictionary = "cidrs", probability = 0.5 }}
"body.token" = {{ dictionary = "tokens", probability = 0.5 }}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Return a lab whose appliance has a cloud, a link that will never come up, and a CIDR that goes there."""
    with Lab.open() as made:
        made.start_cloud()
        made.start_appliance()
        made.api("POST", "/v1/links", {"name": "hk", "token": JOIN_TOKEN})
        made.api("POST", "/v1/cidrs", {"cidr": "10.240.0.0/16"})
        yield made


def test_every_operation_answers_as_the_document_says(lab: Lab) -> None:
    configuration, report = lab.place("schemathesis") / "schemathesis.toml", lab.place("schemathesis") / "run.ndjson"
    configuration.touch(mode=0o600)
    configuration.write_text(
        CONFIGURATION.format(
            hooks=cautious.__file__,
            token=lab.token(cautious.OWN, "write"),
            certificate=lab.certificate,
            seconds=SECONDS,
            report=report,
            join_token=JOIN_TOKEN,
        )
    )
    done = lab["appliance"].run(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(configuration), "--no-color"),
        *("run", f"https://127.0.0.1:{API_PORT}/v1/openapi.json"),
        check=False,
        timeout=SECONDS * 2 + 180,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    seen = answers(report)
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    operations = {
        (method.upper(), path) for path, item in document["paths"].items() for method in METHODS & item.keys()
    }
    assert {each for each in operations if seen[each] <= NOT_THE_ROUTER} == set()
    assert any(each["name"] == cautious.OWN for each in lab.api("GET", "/v1/tokens")["tokens"]), "it locked itself out"
    log = (lab.place("appliance") / "log" / "nexthopd.log").read_text(errors="replace")
    assert "Traceback" not in log
    assert "our own mistake" not in log


def answers(report: Path) -> dict[tuple[str, str], set[int | None]]:
    """Return the statuses that each operation was answered with."""
    found: dict[tuple[str, str], set[int | None]] = defaultdict(set)
    with report.open() as lines:
        for line in lines:
            recorder: dict[str, Any] = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for number, case in recorder.get("cases", {}).items():
                answer = recorder.get("interactions", {}).get(number, {}).get("response") or {}
                found[case["value"]["method"], case["value"]["path"]].add(answer.get("status_code"))
    return found
