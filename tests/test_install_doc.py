"""docs/install-aliyun.md says what is so: its policy is the one that the code asks for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from appliance import firstboot
from appliance.tunnel import token as join_token
from cloud.policy import ram_policy

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "install-aliyun.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_policy_is_the_least_that_the_code_calls() -> None:
    (printed,) = blocks("json")
    assert json.loads(printed) == ram_policy("cn-shenzhen", "ACCOUNT", ["vtb-..."])


def test_every_user_data_on_the_page_is_taken_by_a_first_boot() -> None:
    token = join_token.encode(join_token.JoinToken("203.0.113.10", 9443, "a" * 43, "shenzhen", "c2VjcmV0"))
    roles = []
    for block in blocks("yaml"):
        assert block.startswith("#cloud-config\n")
        (file,) = yaml.safe_load(block)["write_files"]
        assert (file["path"], file["permissions"]) == ("/etc/nexthop/firstboot.yaml", "0600")
        roles.append(firstboot.read(file["content"].replace("nexthop1_...", token)).role)
    assert roles == [firstboot.Role.GTUND, firstboot.Role.APPLIANCE]


def test_taking_it_down_stops_all_that_would_start_a_daemon_again() -> None:
    units = {path.name for path in (ROOT / "images" / "files" / "systemd").glob("nexthop*")}
    once = {"nexthop-firstboot.service", "nexthop-untried.service"}  # at boot, and not then either: nothing asks for it
    (stop,) = re.findall(r"^systemctl stop ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    named = {name.replace("@*", "@").strip("'") for name in stop.replace("\\", " ").split()}
    assert {name if "." in name else f"{name}.service" for name in named} == units - once


def test_the_build_sets_only_variables_that_there_are() -> None:
    known = json.loads((ROOT / "packer.json").read_text())["variables"]
    named = re.findall(r"-var (\w+)=", PAGE)
    assert named
    assert set(named) <= set(known)
