from __future__ import annotations

import base64
import io
import json
import logging
import tarfile
from pathlib import Path

from api.bundle import pack, secrets
from appliance.log import Ring

from .conftest import SECRET, TOKEN, Appliance


def unpacked(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        return {entry.name: (tar.extractfile(entry) or io.BytesIO()).read().decode() for entry in tar.getmembers()}


def test_it_holds_what_helps_and_nothing_that_is_secret(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16", "comment": f"do not keep {TOKEN}"})
    token = joined.token("write", "ops")
    answer = joined.remote("GET", "/v1/support-bundle", token)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/gzip"
    found = unpacked(answer.body)
    parts = {name.removeprefix("nexthop-support/") for name in found}
    assert {"versions.txt", "config.toml", "log.txt", "status.json", "cidrs.json", "links.json", "routes.json"} <= parts
    assert {"history.json", "doctor.json", "kernel/routes.txt", "kernel/rules.txt", "kernel/nftables.txt"} <= parts
    assert json.loads(found["nexthop-support/cidrs.json"])["cidrs"][0]["cidr"] == "10.244.0.0/16"
    assert found["nexthop-support/kernel/nftables.txt"] == "table inet nexthop {}\n"
    assert "Traceback" not in "".join(found.values())
    everything = "\n".join(found.values())
    key = (joined.state / "links" / "hk.toml").read_text().partition('key = "')[2].partition('"')[0]
    pem = (joined.state / "api" / "tls.pem").read_text().splitlines()[1]
    for secret in (token, TOKEN, SECRET, key, pem):
        assert len(secret) > 20
        for form in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            assert form not in everything


def test_what_lies_on_the_machine_is_known_and_scrubbed_wherever_it_turns_up(joined: Appliance, tmp_path: Path) -> None:
    known = secrets(joined.parts)
    key = (joined.state / "links" / "hk.toml").read_text().partition('key = "')[2].partition('"')[0]
    assert key in known
    raw = base64.b64decode(key)
    told = unpacked(pack({"log.txt": f"{key} {raw.hex()} {raw.hex().upper()} {SECRET}"}, known, 0.0))
    assert set(told["nexthop-support/log.txt"].split()) == {"[scrubbed]"}


def test_a_daemon_whose_database_is_lost_gives_one_all_the_same(joined: Appliance) -> None:
    joined.parts.tokens  # noqa: B018
    (joined.state / "nexthop.db").write_bytes(b"this is no database" * 1000)
    import http.client  # noqa: PLC0415

    from api.transport import Local  # noqa: PLC0415

    connection: http.client.HTTPConnection = Local(str(joined.socket)).connect(20)
    connection.request("GET", "/v1/support-bundle")
    found = unpacked(connection.getresponse().read())
    connection.close()
    assert json.loads(found["nexthop-support/cidrs.json"])["code"] == "store-unavailable"
    assert "store-unavailable" in found["nexthop-support/status.json"]


def test_the_log_is_kept_for_it_line_by_line_and_not_for_ever() -> None:
    ring = Ring()
    log = logging.getLogger("api.test_bundle")
    log.addHandler(ring)
    try:
        for number in range(2100):
            log.warning("line %s %s", number, "x" * 2500)
    finally:
        log.removeHandler(ring)
    assert len(ring.lines) == 2000
    assert max(map(len, ring.lines)) <= 2000
    assert "line 2099" in ring.lines[-1]
