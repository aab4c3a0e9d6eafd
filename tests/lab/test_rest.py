"""The REST API of the running daemon, over TLS on the appliance's own network, with an emulated cloud behind it."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import tarfile
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from appliance.tunnel.token import JoinToken, encode
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.programs import API_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

URL: Final = f"https://127.0.0.1:{API_PORT}"
SECRET: Final = "c2VjcmV0LW9mLXRoaXMtdmVyeS1sYWI"
TOKEN: Final = encode(JoinToken(topology.GTUND_EIP, 9443, "cGluLXBpbi1waW4=", "shenzhen", SECRET))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a lab whose appliance has a cloud, and a link that will never come up."""
    with Lab.open() as made:
        made.start_cloud()
        made.start_appliance()
        made.api("POST", "/v1/links", {"name": "hk", "token": TOKEN})
        yield made


def curl(lab: Lab, target: str, *options: str) -> str:
    return lab["appliance"].run("curl", "-sS", "--cacert", str(lab.certificate), *options, URL + target).stdout


def bearer(lab: Lab, token: str) -> str:
    """Return what makes curl send the token, which no command line shows."""
    file = lab.place("appliance") / "bearer"
    file.touch(mode=0o600)
    file.write_text(f"Authorization: Bearer {token}")
    return f"@{file}"


def test_the_certificate_is_the_one_whose_fingerprint_is_shown(lab: Lab) -> None:
    shown = lab.api("GET", "/v1/status")["api"]
    ask = f"openssl s_client -connect 127.0.0.1:{API_PORT} </dev/null 2>/dev/null"
    told = lab["appliance"].shell(f"{ask} | openssl x509 -noout -fingerprint -sha256")
    assert told.strip().partition("=")[2] == shown["fingerprint"]
    assert shown["listen"] == f"0.0.0.0:{API_PORT}"
    assert lab.certificate.stat().st_mode & 0o777 == 0o600


def test_without_a_token_nothing_and_with_one_everything(lab: Lab) -> None:
    assert json.loads(curl(lab, "/v1/status"))["code"] == "token-missing"
    header = bearer(lab, lab.token("curl", "read"))
    assert json.loads(curl(lab, "/v1/status", "-H", header))["cloud"]["vpc_id"] == "vpc-shenzhen"
    routes = json.loads(curl(lab, "/v1/routes", "-H", header))
    assert {table["kind"] for table in routes["tables"]} == {"system", "custom"}
    assert all(table["vswitches"] for table in routes["tables"])
    assert "nexthop_cloud_calls_total" in curl(lab, "/metrics", "-H", header)


def test_two_clients_that_change_the_same_cidr_at_once_lose_nothing(lab: Lab) -> None:
    made = lab.api("POST", "/v1/cidrs", {"cidr": "10.250.0.0/16"})
    header = bearer(lab, lab.token("two"))
    script = "".join(
        f"curl -s -o /dev/null -w '%{{http_code}} {name}\\n' --cacert {lab.certificate} -X PATCH -H '{header}' "
        f"-H 'If-Match: \"{made['etag']}\"' -H 'Content-Type: application/json' -d '{{\"comment\": \"{name}\"}}' "
        f"{URL}/v1/cidrs/10.250.0.0/16 &\n"
        for name in ("a", "b", "c", "d")
    )
    done = {line.split()[1]: line.split()[0] for line in lab["appliance"].shell(f"{script}wait\n").splitlines()}
    assert sorted(done.values()) == ["200", "412", "412", "412"]
    winner = next(name for name, status in done.items() if status == "200")
    assert lab.api("GET", "/v1/cidrs/10.250.0.0/16")["comment"] == winner
    lab.api("DELETE", "/v1/cidrs/10.250.0.0/16")


def test_a_dry_run_says_what_would_be_done_and_does_not_do_it(lab: Lab) -> None:
    body = {"cidr": "10.251.0.0/16"}
    seen = lab.api("POST", "/v1/cidrs?dry_run=true", body)
    assert {(step["action"], step["table"]) for step in seen["plan"]} >= {
        ("create", "kernel"),
        ("create", "vtb-system"),
    }
    assert "10.251.0.0/16" not in [each["cidr"] for each in lab.api("GET", "/v1/cidrs")["cidrs"]]


def test_the_support_bundle_of_a_run_full_of_faults_holds_no_secret(lab: Lab) -> None:
    ours = lab.token("bundle")
    role = json.loads(
        lab["appliance"]
        .run("curl", "-sSf", f"http://{topology.METADATA}/latest/meta-data/ram/security-credentials/nexthop")
        .stdout
    )
    lab.api("POST", "/v1/cidrs", {"cidr": "10.252.0.0/16", "comment": ours})
    denied = json.dumps({"kind": "error", "code": "Forbidden.RAM", "status": 403, "times": 3})
    lab["vrouter"].run("curl", "-sSf", "-d", denied, f"http://{topology.CLOUD_API}/_emulator/faults")
    lab.wait("the cloud to refuse", lambda: lab.api("GET", "/v1/status")["cloud"]["error"])
    lab.processes["emulator"].send_signal(signal.SIGSTOP)  # the cloud answers no more
    try:
        lab.wait("the cloud to be missed", lambda: lab.api("GET", "/v1/status")["cloud"]["error"], limit=60)
    finally:
        lab.processes["emulator"].send_signal(signal.SIGCONT)
    curl(lab, f"/v1/status?access_token={ours}")
    out = lab.place("appliance") / "bundle.tar.gz"
    curl(lab, "/v1/support-bundle", "-H", bearer(lab, ours), "-o", str(out))
    with tarfile.open(out) as tar:
        parts = {each.name: (tar.extractfile(each) or io.BytesIO()).read() for each in tar.getmembers()}
    everything = b"\n".join(parts.values())
    assert b"10.252.0.0/16" in everything
    assert len(parts["nexthop-support/log.txt"]) > 200
    link = (lab.place("appliance") / "state" / "links" / "hk.toml").read_text()
    key = link.partition('key = "')[2].partition('"')[0]
    secrets = [ours, TOKEN, SECRET, key, *lab.certificate.read_text().splitlines()[1:3]]
    secrets += [role["AccessKeyId"], role["AccessKeySecret"], role["SecurityToken"]]
    for secret in secrets:
        assert len(secret) > 8
        for form in forms(secret):
            assert form not in everything
    assert b"Signature=" not in everything


def forms(secret: str) -> Iterator[bytes]:
    """Yield a secret in every encoding that a program might put it in."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for skip in range(3):
        shifted = base64.b64encode(b"x" * skip + raw)[4 if skip else 0 : -4]
        yield shifted
        yield shifted.replace(b"+", b"-").replace(b"/", b"_")


def test_a_daemon_that_is_told_to_stop_ends_its_streams_and_ends_with_0(lab: Lab) -> None:
    before = lab.unit("appliance", "nexthopd")
    stream = lab["appliance"].start(
        "stream",
        *("curl", "-sSN", "--max-time", "60", "--cacert", str(lab.certificate), "-H", "Accept: text/event-stream"),
        *("-H", bearer(lab, lab.token("stream")), f"{URL}/v1/events"),
    )
    log = lab.directory / "log" / "stream.log"
    lab.wait("the stream", lambda: log.exists() and "event: state" in log.read_text())
    assert before.pid is not None
    os.kill(before.pid, signal.SIGTERM)
    assert stream.wait(20) == 0, log.read_text()[-500:]  # curl would say 18 to a stream that breaks off
    lab.wait("its successor", lambda: lab.unit("appliance", "nexthopd").starts > before.starts)
    lab.wait_for_api()
    assert any(each["name"] == "stream" for each in lab.api("GET", "/v1/tokens")["tokens"])
