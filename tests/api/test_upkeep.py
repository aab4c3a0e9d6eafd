from __future__ import annotations

from dataclasses import replace

from appliance import backup
from appliance.backup import Saved
from appliance.model import Intent
from tests.api.conftest import Appliance, Cli
from tests.api.test_cidrs import PODS, post, refused
from tests.appliance.fakes import POD


def damage(appliance: Appliance) -> None:
    (appliance.state / "nexthop.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


def test_a_database_in_order_is_not_replaced(joined: Appliance) -> None:
    assert refused(joined, "POST", "/v1/restore")["code"] == "no-backup"
    post(joined, cidr=PODS)
    backup.save(joined.state / "nexthop.db", Saved(1.0, (), frozenset()))
    assert refused(joined, "POST", "/v1/restore")["code"] == "store-readable"


def test_a_damaged_one_is_restored_by_the_command(joined: Appliance, cli: Cli) -> None:
    token = joined.token()
    with joined.store() as store:
        backup.save(joined.state / "nexthop.db", replace(store.saved(), intents=(Intent(POD, "hk"),)))
    damage(joined)
    assert refused(joined, "POST", "/v1/cidrs", {"cidr": PODS})["code"] == "store-unavailable"
    assert joined.daemon.get("/v1/status")["findings"][0]["code"] == "store-unavailable"
    done = cli("restore")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("restored 1 CIDRs and 1 tokens; the damaged one is ")
    assert "nexthop token ls" in done.stderr
    assert joined.remote("GET", "/v1/session", token).json["name"] == "token test"
    assert [each["cidr"] for each in joined.daemon.get("/v1/cidrs")["cidrs"]] == [PODS]
