"""The command against a daemon elsewhere: nothing is sent before that daemon has shown that it is the one meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from api.transport import BadAddress, Remote, remote
from tests.api.conftest import ROOT, Appliance, Cli


def elsewhere(
    appliance: Appliance, *arguments: str, token: str = "", pin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `nexthop` as somebody on another machine does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEXTHOP_")}
    return subprocess.run(
        [sys.executable, "-m", "api.cli", "--url", f"https://127.0.0.1:{appliance.port}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        env={**environment, "NEXTHOP_TOKEN": token, "NEXTHOP_FINGERPRINT": pin},
    )


def new_token(cli: Cli, scope: str) -> str:
    made = cli("token", "add", scope, "--scope", scope)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_with_token_and_fingerprint_everything_works_as_on_the_machine(joined: Appliance, cli: Cli) -> None:
    pin, token = joined.identity.fingerprint, new_token(cli, "write")
    added = elsewhere(joined, "cidr", "add", "10.244.0.0/16", token=token, pin=pin)
    assert (added.returncode, added.stdout) == (0, "10.244.0.0/16 via hk: carried\n")
    assert joined.cidrs() == ["10.244.0.0/16"]
    listed = elsewhere(joined, "cidr", "ls", "--json", token=token, pin=pin)
    assert [each["cidr"] for each in json.loads(listed.stdout)["cidrs"]] == ["10.244.0.0/16"]
    events = json.loads(cli("events", "--json").stdout)["events"]
    assert ("token write", "added") in [(each["who"], each["what"]) for each in events]


def test_a_token_that_may_only_read_changes_nothing(joined: Appliance, cli: Cli) -> None:
    pin, token = joined.identity.fingerprint, new_token(cli, "read")
    assert elsewhere(joined, "cidr", "ls", token=token, pin=pin).returncode == 0
    refused = elsewhere(joined, "cidr", "add", "10.244.0.0/16", token=token, pin=pin)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert joined.cidrs() == []


@pytest.mark.parametrize("pin", ["", "ab" * 32])
def test_a_daemon_that_is_not_the_one_meant_gets_no_token(joined: Appliance, cli: Cli, pin: str) -> None:
    token = new_token(cli, "write")
    refused = elsewhere(joined, "cidr", "ls", token=token, pin=pin)
    assert refused.returncode == 1
    assert "is not trusted" in refused.stderr
    assert "--fingerprint" in refused.stderr
    assert token not in refused.stderr
    (known,) = json.loads(cli("token", "ls", "--json").stdout)["tokens"]
    assert known["last_used"] is None


def test_without_a_token_it_is_refused_with_what_to_do(joined: Appliance) -> None:
    refused = elsewhere(joined, "status", pin=joined.identity.fingerprint)
    assert refused.returncode == 1
    assert " -> " in refused.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://172.18.2.10",
        "172.18.2.10:8443",
        "https://",
        "https://a/path",
        "https://u@a",
        "https://a:99999",
        "ftp://a",
    ],
)
def test_an_address_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(BadAddress, match="https://HOST:PORT"):
        remote(url)


def test_fingerprints_are_taken_as_they_are_shown_everywhere() -> None:
    plain = "ab" * 32
    for written in (plain, plain.upper(), ":".join(["AB"] * 32), "SHA256:" + plain):
        assert remote("https://a", "", written) == Remote("a", 8443, "", plain)
    with pytest.raises(BadAddress, match="64 hex digits"):
        remote("https://a", "", "abcd")
    assert str(remote("https://[2001:db8::1]:99")) == "https://[2001:db8::1]:99"
    assert "secret" not in repr(remote("https://a", "nht_secret"))
