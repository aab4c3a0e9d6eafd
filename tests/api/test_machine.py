"""`nexthop setup` asks what firstboot.yaml would say, and nothing where nobody can answer."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from api.cli import app
from api.commands import machine
from appliance.firstboot import Role, build
from tests.appliance.test_firstboot import TOKEN


@pytest.fixture
def answers(monkeypatch):
    """Give answers by a word of the question; what is not named takes its default."""
    given: dict[str, str] = {}

    def ask(question: str, default: str | None = None, **_: object) -> str:
        found = [answer for word, answer in given.items() if word in question]
        return found[0] if found else str(default)

    monkeypatch.setattr(typer, "prompt", ask)
    monkeypatch.setattr(typer, "confirm", lambda question, default: given.get("confirm", "yes") == "yes")
    return given


def test_an_appliance_is_asked_for_its_token_and_cidrs(answers) -> None:
    answers.update({"Join token": f" {TOKEN}\n", "CIDRs to reach": "10.244.0.0/16 10.96.0.0/16"})
    found = build(machine._questions())
    assert (found.role, found.links) == (Role.APPLIANCE, {"hk": TOKEN})
    assert [each["cidr"] for each in found.cidrs] == ["10.244.0.0/16", "10.96.0.0/16"]
    assert found.config == ""


def test_a_token_may_come_later_and_there_may_be_no_cloud(answers) -> None:
    answers.update({"confirm": "no", "Join token": ""})
    found = build(machine._questions())
    assert (found.links, found.cidrs, found.config) == ({}, (), '[cloud]\n"provider" = "none"\n')


def test_a_far_end_is_asked_where_it_is_and_what_it_serves(answers) -> None:
    answers.update({"What is this": "gtund", "HOST:PORT": "203.0.113.10:9443", "CIDRs that lie": "10.244.0.0/16"})
    assert build(machine._questions()).role is Role.GTUND


def test_without_a_terminal_it_says_what_to_do_instead() -> None:
    done = CliRunner().invoke(app, ["setup"])
    assert done.exit_code == 2
    assert "firstboot.yaml" in done.output


def test_a_wheel_that_is_none_is_refused_and_nothing_was_changed(tmp_path) -> None:
    done = CliRunner().invoke(app, ["upgrade", str(tmp_path / "nothing.whl")])
    assert done.exit_code == 1
    assert "nothing was changed" in done.output
