"""A link that must not come up: it says why, tries again, and gives no secret away."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from appliance.tunnel.token import JoinToken, decode, encode
from tests.lab import programs
from tests.lab.lab import Lab
from tests.lab.space import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

IMPOSTOR_PORT = 9555


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.open() as lab:
        lab.start_cloud()
        lab.start_gtund()
        lab.start_appliance()
        yield lab


def new_token(lab: Lab, client: str) -> JoinToken:
    return decode(lab["gtund"].run(*programs.gtund(lab.place("gtund"), "client", "add", client)).stdout)


def join(lab: Lab, link: str, token: JoinToken) -> None:
    lab.nexthop("link", "join", link, stdin=encode(token))


def refused(lab: Lab, link: str, code: str) -> dict[str, Any]:
    """Return the link's report once it is down for this reason and has tried more than once."""
    log = lab.place("appliance") / "log" / f"gtun@{link}.log"
    lab.wait(f"link {link} to be down", lambda: lab.link(link)["code"] == code)
    lab.wait(f"link {link} to try again", lambda: log.read_text().count("is down") >= 3)
    return lab.link(link)


def assert_no_secret_was_printed(lab: Lab, link: str) -> None:
    written = tomllib.loads((lab.place("appliance") / "state" / "links" / f"{link}.toml").read_text())["link"]
    shown = lab.nexthop("status", check=False).stdout + lab.nexthop("link", "ls", "--json").stdout
    for path in (*lab.directory.glob("log/*.log"), *lab.directory.glob("*/log/*.log")):
        shown += path.read_text()
    for secret in (written["key"], written["join"]):
        assert secret
        assert secret not in shown


def test_a_spent_token_is_denied_and_the_status_says_what_to_do(lab: Lab) -> None:
    token = new_token(lab, "first")
    join(lab, "good", token)
    lab.wait("the first link", lambda: lab.link("good")["state"] == "up")
    join(lab, "late", token)
    report = refused(lab, "late", "denied")
    assert report["state"] == "down"
    status = lab.nexthop("status", check=False)
    assert status.returncode == 1
    assert "late" in status.stdout
    assert "gtund client add" in status.stdout
    assert_no_secret_was_printed(lab, "late")
    assert lab.link("good")["state"] == "up"


def test_a_wrong_pin_keeps_the_link_down_and_is_named(lab: Lab) -> None:
    token = new_token(lab, "pinned")
    join(lab, "pinned", replace(token, pin=token.pin[::-1].lstrip("=") + "="))
    report = refused(lab, "pinned", "pin-mismatch")
    assert "key" in report["reason"]
    assert "pinned" in lab.nexthop("status", check=False).stdout
    assert_no_secret_was_printed(lab, "pinned")


def test_an_impostor_hears_not_one_byte(lab: Lab) -> None:
    place = lab.place("impostor")
    lab.start("gtund", "impostor", *PYTHON, "tests.lab.impostor", str(IMPOSTOR_PORT), str(place))
    lab.wait("the impostor", (place / "visits").exists)
    join(lab, "led-astray", replace(new_token(lab, "astray"), port=IMPOSTOR_PORT))
    refused(lab, "led-astray", "pin-mismatch")
    assert (place / "visits").read_text().count("shook hands") >= 3
    assert (place / "heard").read_bytes() == b""
    assert_no_secret_was_printed(lab, "led-astray")
