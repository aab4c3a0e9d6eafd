"""The README's recipes, to the letter: what it tells to type is typed here, with a test's socket and address in it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import typer.main

from api.cli import app

from .conftest import ROOT, TOKEN, Appliance

BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SOCKET: Final = "/run/nexthop/nexthopd.sock"
SECRET: Final = "nht_..."  # as the README writes the token that its reader got


def block(text: str) -> str:
    """Return the one recipe that holds this."""
    (found,) = [each for each in BLOCKS if text in each]
    return str(found)


def typed(appliance: Appliance, script: str, place: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Let a shell have it, as somebody who sits at the machine."""
    script = script.replace(SOCKET, str(appliance.socket)).replace("HOST:8443", f"127.0.0.1:{appliance.port}")
    file = place / "typed.sh"
    file.write_text(
        f'nexthop() {{ {shlex.quote(sys.executable)} -m api.cli "$@"; }}\nshopt -s expand_aliases\n{script}'
    )
    environment = {**os.environ, "NEXTHOP_SOCKET": str(appliance.socket), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", file], check=False, input=stdin, capture_output=True, text=True, timeout=90, cwd=place, env=environment
    )


def test_the_recipe_for_the_socket_adds_the_cidr(joined: Appliance, tmp_path: Path) -> None:
    done = typed(joined, block("localhost/v1/cidrs"), tmp_path)
    assert json.loads(done.stdout)["cidr"] == "10.244.0.0/16"
    assert joined.cidrs() == ["10.244.0.0/16"]


def test_the_recipe_for_the_network_shows_status_plan_way_and_events(joined: Appliance, tmp_path: Path) -> None:
    first, _, rest = block("openssl s_client").partition("echo ")
    token = json.loads(typed(joined, first, tmp_path).stdout)["token"]
    assert SECRET in rest
    lines = f"echo {rest}".replace(SECRET, token).splitlines()
    endless = lines.pop().replace("ask", "timeout 2 curl -sS --cacert nexthop.crt -H @token")  # no alias behind timeout
    done = typed(joined, "\necho\n".join([*lines, endless]), tmp_path)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [next(iter(each)) for each in told] == ["version", "cidr", "ip"], done.stderr
    assert "event: state" in done.stdout
    assert joined.cidrs() == []  # the one that changes something is a dry run


def test_what_goes_through_the_api_has_its_answer_as_json() -> None:
    found = []

    def walk(command: object, name: str) -> None:
        for each, under in getattr(command, "commands", {}).items():
            walk(under, f"{name} {each}".strip())
        if not hasattr(command, "commands") and not any("--json" in option.opts for option in command.params):  # type: ignore[attr-defined]
            found.append(name)

    walk(typer.main.get_command(app), "")
    # JSON and nothing else; a file; and what asks no API, or does more than that.
    assert set(found) == {"ram-policy", "support-bundle", "completion", "purge", "setup", "firstboot", "upgrade"}


COMMANDS: Final = [
    line.partition("#")[0].strip() for line in block("nexthop link join").splitlines() if line.startswith("nexthop")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_readme_is_one(appliance: Appliance, tmp_path: Path, command: str) -> None:
    if "link join" not in command:
        appliance.parts.links.join("hk", TOKEN)
        if "cidr add" not in command:
            appliance.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    if "cidr rm" in command:
        command += " --no-wait"  # nobody takes it out of the cloud here
    if endless := "--follow" in command:
        command = f"timeout 3 {shlex.quote(sys.executable)} -m api.cli{command.removeprefix('nexthop')}"
    done = typed(appliance, command, tmp_path, stdin=TOKEN)
    # 1: the kernel and the links of this test are played, so not all is well; 2 would be a command that is none.
    assert done.returncode in ({124} if endless else {0, 1}), done.stderr
    assert done.stdout or done.stderr
