from __future__ import annotations

import json
import logging

import pytest

from api.client import Refused
from appliance.tunnel.token import JoinToken, encode

from .conftest import SECRET, TOKEN, Appliance, Cli


def joined_links(appliance: Appliance) -> list[str]:
    return [path.name for path in (appliance.state / "links").iterdir()]


def test_a_link_is_joined_and_listed_without_its_secrets(
    appliance: Appliance, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        status, made = appliance.daemon.request("POST", "/v1/links", {"name": "hk", "token": TOKEN})
    listed = appliance.daemon.get("/v1/links")
    assert status == 201
    assert made["name"] == "hk"
    assert made["device"] == "tun-hk"
    assert made["server"] == "203.0.113.10:9443"
    assert (made["state"], made["code"]) == ("down", "not-running")  # nobody runs its gtun in this test
    assert listed == {"links": [made]}
    file = (appliance.state / "links" / "hk.toml").read_text()
    key = next(line for line in file.splitlines() if line.startswith("key")).partition('"')[2].rstrip('"')
    for secret in (TOKEN, SECRET, key):
        assert secret
        assert secret not in json.dumps([made, listed, appliance.daemon.get("/v1/status")])
        assert secret not in caplog.text


@pytest.mark.parametrize("token", ["", "nonsense", TOKEN[:-3], "nexthop1_" + "A" * 3000])
def test_a_bad_token_is_refused_and_not_repeated(refusing: Appliance, token: str) -> None:
    with pytest.raises(Refused) as caught:
        refusing.daemon.request("POST", "/v1/links", {"name": "sg", "token": token})
    problem = caught.value.problem
    assert (problem["status"], problem["code"]) == (422, "bad-token")
    assert not token or token not in json.dumps(problem)
    assert joined_links(refusing) == ["hk.toml"]


@pytest.mark.parametrize("name", ["", "HK", "../hk", "hk/x", "a" * 12, "hk\n", "1hk"])
def test_a_bad_name_is_refused(refusing: Appliance, name: str) -> None:
    with pytest.raises(Refused) as caught:
        refusing.daemon.request("POST", "/v1/links", {"name": name, "token": TOKEN})
    assert (caught.value.problem["status"], caught.value.code) == (422, "bad-link-name")
    assert joined_links(refusing) == ["hk.toml"]


def test_a_name_is_taken_once(refusing: Appliance) -> None:
    before = (refusing.state / "links" / "hk.toml").read_bytes()
    with pytest.raises(Refused) as caught:
        refusing.daemon.request("POST", "/v1/links", {"name": "hk", "token": TOKEN})
    assert (caught.value.problem["status"], caught.value.code) == (409, "link-exists")
    assert (refusing.state / "links" / "hk.toml").read_bytes() == before


def test_a_link_in_use_stays(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    with pytest.raises(Refused) as caught:
        joined.daemon.request("DELETE", "/v1/links/hk")
    assert (caught.value.problem["status"], caught.value.code) == (409, "link-in-use")
    assert "10.244.0.0/16" in caught.value.problem["detail"]
    assert (joined.state / "links" / "hk.toml").exists()


def test_a_link_is_removed_with_its_key(joined: Appliance) -> None:
    assert joined.daemon.request("DELETE", "/v1/links/hk") == (204, None)
    assert not (joined.state / "links" / "hk.toml").exists()
    assert joined.daemon.get("/v1/links") == {"links": []}


@pytest.mark.parametrize("name", ["sg", "HK", "..", "%2e%2e", "a b"])
def test_an_unknown_link_is_a_404(refusing: Appliance, name: str) -> None:
    with pytest.raises(Refused) as caught:
        refusing.daemon.request("DELETE", f"/v1/links/{name.replace(' ', '%20')}")
    assert (caught.value.problem["status"], caught.value.code) == (404, "link-unknown")


def test_the_command_takes_the_token_from_a_file_or_standard_input(appliance: Appliance, cli: Cli) -> None:
    file = appliance.state / "token"
    file.write_text(TOKEN + "\n")
    assert cli("link", "join", "hk", "--file", str(file)).stdout.startswith("hk: joined 203.0.113.10:9443")
    assert cli("link", "join", "sg", stdin=TOKEN + "\n").returncode == 0
    assert cli("link", "join", "jp", "-", stdin=TOKEN).returncode == 0
    assert [link["name"] for link in json.loads(cli("link", "ls", "--json").stdout)["links"]] == ["hk", "jp", "sg"]


@pytest.mark.parametrize(
    "arguments", [("hk", TOKEN), (TOKEN,), ("hk", "--file", TOKEN), ("hk", "-", TOKEN), ("hk", f"--file={TOKEN}")]
)
def test_a_token_on_the_command_line_is_refused_and_not_repeated(
    appliance: Appliance, cli: Cli, arguments: tuple[str, ...]
) -> None:
    done = cli("link", "join", *arguments, stdin=TOKEN)
    assert done.returncode == 2
    assert "--file" in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert not (appliance.state / "links").exists()


def test_the_command_says_what_is_wrong_with_a_token(appliance: Appliance, cli: Cli) -> None:
    for stdin in ("", "nonsense", TOKEN[:-2]):
        done = cli("link", "join", "hk", stdin=stdin)
        assert done.returncode == 1
        assert "gtund client add" in done.stderr
        assert done.stdout == ""
    assert "cannot read /nowhere" in cli("link", "join", "hk", "--file", "/nowhere").stderr


def test_the_command_removes_a_link(joined: Appliance, cli: Cli) -> None:
    assert cli("link", "rm", "hk").stdout == "hk: gone\n"
    done = cli("link", "rm", "hk")
    assert done.returncode == 1
    assert "nexthop link ls" in done.stderr


def test_a_server_inside_of_a_carried_cidr_is_refused(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    inside = encode(JoinToken("10.244.0.10", 9443, "PIN=", "sz", "U0VDUkVU"))
    for method, target, body in (
        ("POST", "/v1/links", {"name": "sg", "token": inside}),
        ("PUT", "/v1/links/hk/key", {"token": inside}),
    ):
        with pytest.raises(Refused) as caught:
            joined.daemon.request(method, target, body)
        assert (caught.value.problem["status"], caught.value.code) == (409, "tunnel-server")
    assert [each["name"] for each in joined.daemon.get("/v1/links")["links"]] == ["hk"]


def test_a_link_is_given_another_key(joined: Appliance, cli: Cli) -> None:
    before = (joined.state / "links" / "hk.toml").read_text()
    done = cli("link", "rotate", "hk", stdin=TOKEN)
    assert done.stdout.startswith("hk: has another key")
    assert (joined.state / "links" / "hk.toml").read_text() != before
    assert TOKEN not in done.stdout + done.stderr


def test_what_is_no_token_or_no_link_is_given_no_key(refusing: Appliance) -> None:
    for name, token, status, code in (("hk", "nonsense", 422, "bad-token"), ("sg", TOKEN, 404, "link-unknown")):
        with pytest.raises(Refused) as caught:
            refusing.daemon.request("PUT", f"/v1/links/{name}/key", {"token": token})
        assert (caught.value.problem["status"], caught.value.code) == (status, code)
