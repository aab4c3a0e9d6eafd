"""The benchmark itself, as short as it goes, on a network of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.bench import contenders, local, longline, measure, topology
from tests.bench.plan import Long
from tests.bench.tunnels import Tunnel
from tests.lab import ground
from tests.lab.space import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("iperf3", "ethtool"))

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it builds network namespaces"),
    pytest.mark.skipif(not TOOLS, reason="iperf3 and ethtool are missing: `./run bench` installs them"),
]


_FOR_THE_SOAK = () if os.environ.get("NEXTHOP_SOAK") == "1" else ("stream-1", "hybrid-1")
_MODES = [mode for mode in contenders.OURS if mode.key not in _FOR_THE_SOAK]


@pytest.mark.parametrize("mode", _MODES, ids=lambda mode: str(mode.key))
def test_a_mode_of_ours_carries_everything_that_is_measured(mode: contenders.Contender) -> None:
    with topology.Net.open([mode.key]) as net:
        measure.Pod(net).start()
        tunnel = Tunnel(net, net.paths[mode.key], mode)
        tunnel.up()
        assert measure.udp(net, tunnel.path, 64, 0.2) > 0
        assert measure.request_response(net, tunnel.path, 0.2) > 0
        assert measure.connects(net, tunnel.path, 2) > 0
        assert measure.ping(net, tunnel.path, 5, 0.01) > 0
        rate, cost = measure.tcp(net, tunnel.path, flows=2, down=True, seconds=1, congestion="cubic")
        assert rate > 0
        assert cost["user"] > 0
        assert local.weigh(tunnel)["rss_far"] > 0


def test_the_long_line_is_as_long_as_it_says() -> None:
    with topology.Net.open(["none"], delay=True) as net:
        measure.Pod(net).start()
        longline.Relay(net).start(0.0, 1)
        tunnel = Tunnel(net, net.paths["none"], contenders.NONE)
        tunnel.wait_for_ping()
        plan = Long((0.0,), 1, 1, (), early=(0, 1), late=(1, 3.5), idle_pings=3, idle_connects=2)
        figures = longline.one(net, tunnel, plan)
    assert figures["ping_idle"] >= 2 * longline.ONE_WAY_MS
    assert figures["late"] <= longline.MBPS
    assert set(longline.EXPECTED) <= set(figures)


def test_without_offloads_no_device_makes_a_packet_larger_than_the_mtu() -> None:
    with topology.Net.open(["none"], offloads=False) as net:
        for name, device in (("host", "to-1"), ("near-none", "lan"), ("line", "far-1"), ("pod", "eth-1")):
            features = net[name].run("ethtool", "-k", device).stdout
            for feature in ("tcp-segmentation-offload", "generic-segmentation-offload", "generic-receive-offload"):
                assert f"{feature}: off" in features


def test_a_run_that_is_told_to_end_leaves_nothing() -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "fast,none"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not (mine := [one for one in ground.labs() if _owned_by(one, run.pid)]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 128 + signal.SIGTERM, said
    assert not set(mine) & set(ground.labs())


def _owned_by(lab: str, pid: int) -> bool:
    owner = ground.owner(lab)
    return owner is not None and owner.pid == pid


def test_all_readings_are_written_down(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "plain,none", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, 3), done.stderr
    told = json.loads(file.read_text())
    assert len(told["sections"]["plain"]["readings"]["none"]["tcp1_up"]) == 3
    assert told["failures"] == []
