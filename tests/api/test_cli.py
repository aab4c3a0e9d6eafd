"""The command as a user runs it: a process with arguments, two streams and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from appliance.model import parse_cidr
from appliance.status import Layer, LayerState

from .conftest import OK, ROOT, Appliance, Cli, command
from .test_cidrs import REFUSED

PODS = "10.244.0.0/16"
# typer itself takes a part of pydantic where a command has parameters
HEAVY = ("fastapi", "uvicorn", "starlette", "pyroute2", "cryptography", "iptc", "aliyunsdkcore", "sqlite3")


def imported(*arguments: str) -> set[str]:
    """Run `nexthop` and return the top-level names of all that it imported."""
    code = (
        "import sys\n"
        "from api.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(' '.join(sorted(name.partition('.')[0] for name in sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["cidr", "--help"], ["--version"], ["--socket", "/nowhere", "cidr", "ls"]]
)
def test_the_command_imports_nothing_heavy(arguments: list[str]) -> None:
    found = imported(*arguments)
    assert found.isdisjoint(HEAVY)
    assert "rich" not in found
    assert "api" in found


def test_help_and_version(tmp_path: Path) -> None:
    cli = command(tmp_path / "nowhere")
    assert "cidr" in cli("--help").stdout
    assert cli("-h").returncode == 0
    assert cli("--version").stdout.startswith("nexthop ")
    assert cli("cidr", "frobnicate").returncode == 2
    assert cli("cidr", "add").returncode == 2


def test_without_a_daemon_every_command_says_how_to_start_it(tmp_path: Path) -> None:
    cli = command(tmp_path / "nowhere")
    for arguments in (["status"], ["cidr", "ls"], ["cidr", "add", PODS], ["cidr", "rm", PODS], ["link", "ls"]):
        done = cli(*arguments)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: nexthopd does not run")
        assert "systemctl start nexthopd" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_cidr_is_added_listed_and_removed(joined: Appliance, cli: Cli) -> None:
    added = cli("cidr", "add", PODS, "--comment", "pods")
    assert added.returncode == 0
    assert added.stdout == f"{PODS} via hk: carried\n"
    assert "kernel: ok" in added.stderr
    listed = cli("cidr", "ls")
    assert listed.stderr == ""
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["CIDR", "VIA", "PHASE", "KERNEL", "CLOUD", "PATH", "COMMENT"],
        [PODS, "hk", "present", "ok", "ok", "-", "pods"],
    ]
    assert json.loads(cli("cidr", "ls", "--json").stdout) == joined.daemon.get("/v1/cidrs")
    removed = cli("cidr", "rm", PODS, "--no-wait")
    assert removed.returncode == 0
    assert removed.stdout == f"{PODS}: leaving\n"


def test_adding_twice_is_no_error(joined: Appliance, cli: Cli) -> None:
    for _ in range(2):
        assert cli("cidr", "add", PODS, "--json").returncode == 0
    again = cli("cidr", "add", PODS)
    assert again.stdout == f"{PODS} via hk: carried\n"
    assert "was recorded before" in again.stderr


@pytest.mark.parametrize(("cidr", "code"), REFUSED[:8:2])
def test_what_may_not_be_is_refused_on_stderr(joined: Appliance, cli: Cli, cidr: str, code: str) -> None:
    done = cli("cidr", "add", cidr)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert " -> " in done.stderr
    assert joined.cidrs() == []


def test_a_refusal_is_a_document_with_json(joined: Appliance, cli: Cli) -> None:
    done = cli("cidr", "add", "0.0.0.0/0", "--json")
    assert done.returncode == 1
    problem = json.loads(done.stdout)
    assert problem["code"] == "cidr-refused"
    assert [reason["code"] for reason in problem["reasons"]] == ["default-route"]
    assert json.loads(cli("cidr", "rm", PODS, "--json").stdout)["code"] == "cidr-unknown"


def test_add_waits_for_both_layers_and_tells_what_changes(joined: Appliance, cli: Cli) -> None:
    joined.cloud.now = Layer(LayerState.PENDING, "being written")

    def settle() -> None:
        while not joined.cidrs():
            time.sleep(0.01)
        time.sleep(0.5)
        joined.cloud.now = OK

    thread = threading.Thread(target=settle)
    thread.start()
    done = cli("cidr", "add", PODS, "--timeout", "60")
    thread.join()
    assert done.returncode == 0
    assert done.stderr.index("cloud: pending: being written") < done.stderr.index("cloud: ok")


def test_add_gives_up_waiting_and_says_that_the_daemon_does_not(joined: Appliance, cli: Cli) -> None:
    joined.cloud.now = Layer(LayerState.ERROR, "the route table is full", "cloud-quota")
    done = cli("cidr", "add", PODS, "--timeout", "0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "cloud: error: the route table is full" in done.stderr
    assert "nexthop status" in done.stderr
    assert joined.cidrs() == [PODS]
    assert cli("cidr", "add", PODS, "--no-wait").returncode == 0


def test_rm_waits_until_it_is_gone(joined: Appliance, cli: Cli) -> None:
    cli("cidr", "add", PODS)

    def withdraw() -> None:
        with joined.store() as store:
            while not store.withdrawn(parse_cidr(PODS)):
                time.sleep(0.01)
            store.drop(parse_cidr(PODS), store.all()[0].revision)

    thread = threading.Thread(target=withdraw)
    thread.start()
    done = cli("cidr", "rm", PODS, "--timeout", "60")
    thread.join()
    assert done.returncode == 0
    assert done.stdout == f"{PODS}: gone\n"


def test_a_warning_is_told_and_does_not_fail(joined: Appliance, cli: Cli) -> None:
    done = cli("cidr", "add", "172.18.128.0/20")
    assert done.returncode == 0
    assert "warning: " in done.stderr


def test_a_pipe_gets_plain_text(joined: Appliance, cli: Cli) -> None:
    cli("cidr", "add", PODS)
    for arguments in (["status"], ["cidr", "ls"], ["link", "ls"], ["--help"], ["cidr", "add", "nonsense"]):
        done = cli(*arguments, FORCE_COLOR="1", TERM="xterm-256color")
        assert "\x1b" not in done.stdout + done.stderr


def test_a_reader_who_leaves_early_is_no_error_to_shout_about(joined: Appliance) -> None:
    line = f"{sys.executable} -m api.cli --socket {joined.socket} link ls | true"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in done.stderr
