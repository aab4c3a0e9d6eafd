"""/metrics: what Prometheus collects, gathered when it asks. Nothing here remembers; the counters are others'.

docs/monitoring/ has a dashboard and alert rules; a test holds them to these names.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.parts import Parts
from api.snapshot import gather
from appliance.status import LinkStatus, Status
from appliance.timing import BOUNDS
from cloud.quota import fill

_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CONNTRACK: Final = Path("/proc/sys/net/netfilter")
_TRAFFIC: Final = (
    ("nexthop_link_receive_bytes", "rx_bytes", "Bytes out of the tunnel since its gtun started."),
    ("nexthop_link_transmit_bytes", "tx_bytes", "Bytes into the tunnel since its gtun started."),
    ("nexthop_link_receive_packets", "rx_packets", "Packets out of the tunnel since its gtun started."),
    ("nexthop_link_transmit_packets", "tx_packets", "Packets into the tunnel since its gtun started."),
)
_DROP: Final = "drop_"


def router(parts: Parts, conntrack: Path = _CONNTRACK) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["status"])

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Show what Prometheus collects, in its text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Moment(parts, await gather(parts), conntrack))
        ProcessCollector(namespace="nexthop", registry=registry)
        return Response(generate_latest(registry), media_type=_TYPE)

    return routes


class _Moment(Collector):
    """Everything as it is at one moment."""

    def __init__(self, parts: Parts, status: Status, conntrack: Path) -> None:
        self._parts = parts
        self._status = status
        self._conntrack = conntrack

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("nexthop_build_info", "Always 1; the version is a label.", labels=["version"])
        build.add_metric([self._parts.about.version], 1)
        yield build
        yield from _links(self._parts, self._status.links)
        yield from self._layers()
        yield from self._cloud()
        loops = HistogramMetricFamily("nexthop_loop_seconds", "How long a pass of a loop takes.", labels=["loop"])
        for loop, found in self._parts.timings.all().items():
            buckets, sofar = [], 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), found.counts, strict=True):
                sofar += count
                buckets.append((bound, float(sofar)))
            loops.add_metric([loop], buckets, found.total)
        yield loops
        for name, file, text in (
            ("nexthop_conntrack_entries", "nf_conntrack_count", "Connections that the kernel tracks."),
            ("nexthop_conntrack_limit", "nf_conntrack_max", "Connections that it can track."),
        ):
            gauge = GaugeMetricFamily(name, text)
            value = _number(self._conntrack / file)
            if value is not None:
                gauge.add_metric([], value)
            yield gauge

    def _layers(self) -> Iterator[Metric]:
        cidrs = GaugeMetricFamily("nexthop_cidrs", "CIDRs by layer and state.", labels=["layer", "state"])
        counts = Count(
            (name, layer.state.value)
            for cidr in self._status.cidrs
            for name, layer in (("kernel", cidr.kernel), ("cloud", cidr.cloud), ("path", cidr.path))
        )
        for name in ("kernel", "cloud", "path"):
            for state in ("ok", "pending", "error", "absent"):
                cidrs.add_metric([name, state], counts[name, state])
        yield cidrs
        drift = CounterMetricFamily(
            "nexthop_drift_repairs", "What somebody else had changed and was put right, by kind.", labels=["kind"]
        )
        for kind, count in self._status.drift_repairs.items():
            drift.add_metric([kind], count)
        yield drift

    def _cloud(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "nexthop_cloud_calls", "Calls to the cloud, by action and what it said.", labels=["action", "code"]
        )
        for (action, code), count in self._parts.calls.all().items():
            calls.add_metric([action, code], count)
        yield calls
        if self._parts.clouded:
            writable = self._parts.cloud.vpc() is not None and self._status.cloud.error is None
            text = "Whether routes can be changed now; absent where no cloud is configured."
            yield GaugeMetricFamily("nexthop_cloud_writable", text, value=float(writable))
        quota = GaugeMetricFamily(
            "nexthop_route_quota",
            "Entries of a route table: ours, others, limit, reserve (left to others), free (for us).",
            labels=["table", "kind"],
        )
        seen = self._parts.cloud.observation
        for table in () if seen is None else seen.vpc.tables:
            assert seen is not None  # noqa: S101
            found = fill(table, seen.entries, seen.quota)
            for kind in ("ours", "others", "limit", "reserve", "free"):
                quota.add_metric([table, kind], getattr(found, kind))
        yield quota


def _links(parts: Parts, links: Iterable[LinkStatus]) -> Iterator[Metric]:
    links = tuple(links)
    up = GaugeMetricFamily("nexthop_link_up", "Whether a link carries packets.", labels=["link"])
    since = GaugeMetricFamily(
        "nexthop_link_up_since_seconds", "Since when a link is up, in seconds since the epoch.", labels=["link"]
    )
    rtt = GaugeMetricFamily("nexthop_link_rtt_seconds", "The smoothed round trip of a link.", labels=["link"])
    loss = GaugeMetricFamily(
        "nexthop_link_loss_ratio", "Which part of the last half minute's probes was lost.", labels=["link"]
    )
    drops = CounterMetricFamily(
        "nexthop_link_drops", "Packets dropped by a link, by reason.", labels=["link", "reason"]
    )
    for link in links:
        is_up = link.state == "up"
        up.add_metric([link.name], float(is_up))
        if is_up and link.since is not None:
            since.add_metric([link.name], link.since)
        if link.rtt_ms is not None:
            rtt.add_metric([link.name], link.rtt_ms / 1000)
        lost = None if parts.paths is None else parts.paths.loss(link.name)
        if lost is not None:
            loss.add_metric([link.name], lost)
        for key, count in sorted(link.counters.items()):
            if key.startswith(_DROP):
                drops.add_metric([link.name, key.removeprefix(_DROP)], count)
    yield from (up, since, rtt, loss, drops)
    for name, key, text in _TRAFFIC:
        family = CounterMetricFamily(name, text, labels=["link"])
        for link in links:
            family.add_metric([link.name], link.counters.get(key, 0))
        yield family


def _number(path: Path) -> float | None:
    """Return what a file in /proc says; None where the kernel has no such thing (no conntrack yet)."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
