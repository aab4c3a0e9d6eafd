"""What the command shows of tokens, events, routes and single addresses, and what a shell may complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from api.commands.events import numbered
from tests.api.conftest import ROOT, Appliance, Cli

PODS = "10.244.0.0/16"


def test_a_token_is_shown_once_and_works_until_it_is_removed(joined: Appliance, cli: Cli) -> None:
    made = cli("token", "add", "grafana", "--days", "7")
    assert made.returncode == 0
    assert made.stdout.startswith("nht_")
    assert "not shown again" in made.stderr
    listed = cli("token", "ls")
    assert "grafana" in listed.stdout
    assert "never" in listed.stdout
    assert made.stdout.strip() not in listed.stdout + cli("token", "ls", "--json").stdout
    assert cli("token", "add", "grafana").returncode == 1
    assert cli("token", "rm", "grafana").stdout == "grafana: gone\n"
    assert cli("token", "rm", "grafana").returncode == 1


def test_events_are_listed_the_latest_last(joined: Appliance, cli: Cli) -> None:
    cli("cidr", "add", PODS, "--no-wait")
    cli("cidr", "rm", PODS, "--no-wait")
    lines = cli("events").stdout.splitlines()
    assert lines[0].split() == ["WHEN", "WHO", "WHAT", "CIDR", "DETAIL"]
    assert f"uid {os.getuid()}  added" in lines[-2]
    assert f"uid {os.getuid()}  removed" in lines[-1]
    assert len(cli("events", "--limit", "1").stdout.splitlines()) == 2


def test_events_are_followed_as_they_happen(joined: Appliance, cli: Cli) -> None:
    cli("cidr", "add", PODS, "--no-wait")
    command = [sys.executable, "-m", "api.cli", "--socket", str(joined.socket), "events", "--follow", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            timer = threading.Timer(30, follower.kill)
            timer.start()
            assert json.loads(follower.stdout.readline())["what"] == "added"
            cli("cidr", "rm", PODS, "--no-wait")
            assert json.loads(follower.stdout.readline())["what"] == "removed"
            timer.cancel()
        finally:
            follower.kill()


def test_a_stream_is_read_event_by_event() -> None:
    lines = [
        ": hello",
        "",
        "id: 7",
        "event: added",
        'data: {"a":',
        "data: 1}",
        "",
        "event: state",
        "data: {}",
        "",
        "id: 8",
    ]
    assert list(numbered(iter(lines))) == [("7", '{"a":\n1}')]


def test_a_cidr_is_shown_whole(joined: Appliance, cli: Cli) -> None:
    cli("cidr", "add", PODS, "--comment", "pods", "--mss", "1400")
    shown = cli("cidr", "show", PODS).stdout.splitlines()
    assert shown[0] == f"{PODS} via hk, present"
    told = {line.split()[0]: line.split()[1] for line in shown[1:]}
    assert (told["kernel"], told["cloud"], told["mss"], told["snat"], told["comment"]) == (
        *("ok", "ok", "1400", "on", "pods"),
    )
    assert cli("cidr", "show", "10.99.0.0/16").returncode == 1


def test_an_address_is_explained_down_to_where_packets_stop(joined: Appliance, cli: Cli) -> None:
    nowhere = cli("explain", "10.244.1.20")
    assert nowhere.returncode == 1
    assert "NO" in nowhere.stdout
    assert " -> " in nowhere.stdout or "-> " in nowhere.stdout
    assert json.loads(cli("explain", "10.244.1.20", "--json").stdout)["ip"] == "10.244.1.20"
    assert cli("explain", "nonsense").returncode == 1


def test_the_route_tables_are_shown_or_why_there_are_none(joined: Appliance, cli: Cli) -> None:
    shown = cli("routes")
    assert shown.returncode == 0
    assert shown.stdout
    assert json.loads(cli("routes", "--json").stdout)["tables"] is not None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.returncode == 0
    assert "_NEXTHOP_COMPLETE" in done.stdout
    assert cli("completion", "tcsh").returncode == 2


def test_bash_completes_commands() -> None:
    asked = {"_NEXTHOP_COMPLETE": "complete_bash", "COMP_WORDS": "nexthop cidr ", "COMP_CWORD": "2"}
    code = "import sys; sys.argv[0] = 'nexthop'; from api.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **asked},
    )
    assert {"add", "adopt", "ls", "rm", "set", "show"} <= set(done.stdout.split())


def test_a_support_bundle_is_never_written_over_a_file(joined: Appliance, cli: Cli, tmp_path: Path) -> None:
    there = tmp_path / "bundle.tar.gz"
    there.write_text("mine")
    refused = cli("support-bundle", str(there))
    assert refused.returncode == 1
    assert there.read_text() == "mine"
