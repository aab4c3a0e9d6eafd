"""What Prometheus gets, and that the dashboard and the alerts ask for nothing else."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.transport import Local
from appliance.status import Layer, LayerState

from .conftest import ROOT, Appliance
from .test_status import UP, gtun

MONITORING = ROOT / "docs" / "monitoring"
NAMES = (
    *("nexthop_build_info", "nexthop_link_up", "nexthop_link_up_since_seconds", "nexthop_link_rtt_seconds"),
    *("nexthop_link_receive_bytes_total", "nexthop_link_transmit_bytes_total", "nexthop_link_receive_packets_total"),
    *("nexthop_link_transmit_packets_total", "nexthop_link_drops_total", "nexthop_cidrs", "nexthop_route_quota"),
    *(
        "nexthop_drift_repairs_total",
        "nexthop_cloud_calls_total",
        "nexthop_cloud_writable",
        "nexthop_loop_seconds_bucket",
    ),
)

UNPLAYED = ("link_loss_ratio", "conntrack_entries", "conntrack_limit")  # nothing is probed or tracked in this test


def scrape(appliance: Appliance) -> str:
    connection: http.client.HTTPConnection = Local(str(appliance.socket)).connect(20)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return text


def busy(appliance: Appliance) -> str:
    """Return the metrics of an appliance in which everything that is counted has happened."""
    appliance.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    appliance.kernel.mended = {"route": 2}
    appliance.parts.calls.note("DescribeVpcs", "OK")
    appliance.parts.calls.note("CreateRouteEntry", "Forbidden.RAM")
    appliance.parts.timings.note("kernel", 0.02)
    appliance.parts.timings.note("cloud", 90.0)
    counters = {
        "rx_bytes": 10,
        "tx_bytes": 20,
        "rx_packets": 1,
        "tx_packets": 2,
        "drop_queue": 3,
        "repaired_address": 1,
    }
    with gtun(appliance, **UP, counters=counters):
        return scrape(appliance)


def values(text: str) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_is_told(joined: Appliance) -> None:
    found = values(busy(joined))
    assert {name for name, _ in found} >= set(NAMES)
    assert all(name.startswith("nexthop_") for name, _ in found)
    assert found["nexthop_build_info", (("version", "1.2.3"),)] == 1
    assert found["nexthop_link_up", (("link", "hk"),)] == 1
    assert found["nexthop_link_rtt_seconds", (("link", "hk"),)] == pytest.approx(0.1152)
    assert found["nexthop_link_transmit_bytes_total", (("link", "hk"),)] == 20
    assert found["nexthop_link_drops_total", (("link", "hk"), ("reason", "queue"))] == 3
    assert found["nexthop_cidrs", (("layer", "kernel"), ("state", "ok"))] == 1
    assert found["nexthop_cidrs", (("layer", "cloud"), ("state", "error"))] == 0
    assert found["nexthop_drift_repairs_total", (("kind", "route"),)] == 2
    assert found["nexthop_cloud_calls_total", (("action", "CreateRouteEntry"), ("code", "Forbidden.RAM"))] == 1
    assert found["nexthop_cloud_writable", ()] == 1
    assert found["nexthop_route_quota", (("kind", "free"), ("table", "vtb-1"))] > 0
    assert found["nexthop_loop_seconds_bucket", (("le", "0.025"), ("loop", "kernel"))] == 1
    assert found["nexthop_loop_seconds_count", (("loop", "cloud"),)] == 1


def test_a_cidr_that_fails_and_a_cloud_that_does_not_answer_are_told(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    joined.cloud.now = Layer(LayerState.ERROR, "no", "cloud-denied")
    joined.cloud.around = None
    found = values(scrape(joined))
    assert found["nexthop_cidrs", (("layer", "cloud"), ("state", "error"))] == 1
    assert found["nexthop_cloud_writable", ()] == 0
    assert found["nexthop_link_up", (("link", "hk"),)] == 0


def test_where_no_cloud_is_configured_nobody_says_that_it_cannot_be_written(joined: Appliance) -> None:
    object.__setattr__(joined.parts, "clouded", False)
    joined.cloud.around = joined.cloud.observation = None
    text = scrape(joined)
    assert "nexthop_cloud_writable" not in text
    assert ("nexthop_link_up", (("link", "hk"),)) in values(text)


def expressions() -> list[str]:
    """Return every expression of the dashboard and of the alerts."""
    found: list[str] = re.findall(r"^\s+expr: (.+)$", (MONITORING / "alerts.yaml").read_text(), re.MULTILINE)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(value for key, value in node.items() if key in {"expr", "definition"})
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(json.loads((MONITORING / "dashboard.json").read_text()))
    return found


def test_dashboard_and_alerts_ask_only_for_what_there_is(joined: Appliance) -> None:
    found = values(busy(joined))
    there = {name for name, _ in found} | {f"nexthop_{each}" for each in UNPLAYED}
    asked = [name for text in expressions() for name in re.findall(r"\bnexthop_\w+", text)]
    assert len(set(asked)) > 12
    assert set(asked) <= there
    labels = {label for _, pairs in found for label, _ in pairs} | {"job", "instance"}
    used = {label for text in expressions() for label in re.findall(r"[{,]\s*(\w+)\s*(?:=~?|!~?)", text)}
    assert used <= labels


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: Debian's package prometheus has it")
def test_promtool_takes_the_metrics_and_the_alerts(joined: Appliance) -> None:
    lint = subprocess.run(
        ["promtool", "check", "metrics"], input=busy(joined), capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
