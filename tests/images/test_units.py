"""The units as text, and as `systemd-analyze` sees them; that they run is shown in the machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

FILES = Path(__file__).parents[2] / "images" / "files"
UNITS = FILES / "systemd"
LINKS = FILES / "libexec" / "nexthop-links"

# The exposure that a unit may have at most: what answers requests, what writes the kernel's state, and the rest.
EXPOSED = {
    "nexthopd.service": 2.0,
    "nexthop-forward.service": 2.5,
    "nexthop-gtun@.service": 2.5,
    "nexthop-links.service": 2.0,
    "gtund.service": 2.5,
}


def unit(name: str) -> RawConfigParser:
    """Return a unit; of a setting that is there several times, the last one."""
    found = RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read(UNITS / name)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", EXPOSED)
def test_a_unit_is_exposed_no_more_than_it_may_be(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (level,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(level) <= EXPOSED[name], done.stdout


def test_the_api_has_no_capability_and_the_small_unit_two() -> None:
    api, small = unit("nexthopd.service")["Service"], unit("nexthop-forward.service")["Service"]
    assert (api["CapabilityBoundingSet"], api["AmbientCapabilities"]) == ("", "")
    assert small["CapabilityBoundingSet"].split() == ["CAP_NET_ADMIN", "CAP_NET_RAW"]
    assert "root" not in {api["User"], small["User"]}
    assert api["User"] != small["User"]
    assert small["SupplementaryGroups"] == "root"  # who may read the names of iptables' tables


def test_forwarding_starts_before_the_api_and_does_not_end_with_it() -> None:
    api, small = unit("nexthopd.service")["Unit"], unit("nexthop-forward.service")["Unit"]
    assert "nexthop-forward.service" in api["After"].split()
    assert "nexthopd.service" in small["Before"].split()
    for setting in ("Requires", "BindsTo", "PartOf"):
        assert "nexthopd" not in small.get(setting, "")
        assert "nexthop-forward" not in api.get(setting, "")


@pytest.mark.parametrize("name", [name for name in EXPOSED if name != "nexthop-links.service"])
def test_a_daemon_says_when_it_is_ready_is_watched_and_comes_back(name: str) -> None:
    service = unit(name)["Service"]
    assert (service["Type"], service["Restart"], service["WatchdogSec"]) == ("notify", "always", "30")
    assert unit(name)["Unit"]["StartLimitIntervalSec"] == "0"


def test_the_apis_socket_is_roots_and_its_groups() -> None:
    socket = unit("nexthopd.socket")["Socket"]
    assert (socket["SocketUser"], socket["SocketGroup"], socket["SocketMode"]) == ("root", "nexthop", "0660")


def test_a_link_that_comes_while_others_are_started_is_started_too(tmp_path: Path) -> None:
    links, said = tmp_path / "links", tmp_path / "said"
    links.mkdir()
    (links / "hk.toml").touch()
    fake = tmp_path / "systemctl"
    fake.write_text(f"""#!/bin/sh\n[ "$1" = list-units ] || {{ echo "$@" >>{said}; : >{links}/late.toml; }}\n""")
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([str(LINKS), str(links)], env=environment, timeout=30, check=True)
    assert said.read_text().splitlines()[-1] == "--no-block start nexthop-gtun@late.service"


def test_there_is_a_gtun_for_each_link_and_none_besides(tmp_path: Path) -> None:
    links, programs, said = tmp_path / "links", tmp_path / "bin", tmp_path / "said"
    links.mkdir()
    programs.mkdir()
    for name in (
        "hk.toml",
        "new.toml",
        ".hk.toml.12",
        "hk.toml.bak",
        "Bad$(id).toml",
        "-o.toml",
        "much-too-long-a-name.toml",
    ):
        (links / name).touch()
    (links / "folder.toml").mkdir()
    fake = programs / "systemctl"
    fake.write_text(
        f"""#!/bin/sh
[ "$1" = list-units ] || {{ echo "$@" >>{said}; exit 0; }}
echo 'nexthop-gtun@hk.service loaded active running Nexthop: link hk'
echo 'nexthop-gtun@old.service loaded failed failed Nexthop: link old'
"""
    )
    fake.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    subprocess.run([str(LINKS), str(links)], env=environment, timeout=30, check=True)
    assert said.read_text().splitlines() == [
        "--no-block stop nexthop-gtun@old.service",
        "reset-failed nexthop-gtun@old.service",
        "--no-block start nexthop-gtun@hk.service",
        "--no-block start nexthop-gtun@new.service",
    ]
    said.unlink()
    for file in links.glob("*.toml"):
        file.unlink() if file.is_file() else file.rmdir()
    subprocess.run([str(LINKS), str(links)], env=environment, timeout=30, check=True)
    assert [line for line in said.read_text().splitlines() if " stop " in line] == [
        "--no-block stop nexthop-gtun@hk.service",
        "--no-block stop nexthop-gtun@old.service",
    ]
    said.unlink()
    shutil.rmtree(links)  # the disk is away: who knows which links there are
    subprocess.run([str(LINKS), str(links)], env=environment, timeout=30, check=True)
    assert not said.exists()
