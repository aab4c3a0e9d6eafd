from __future__ import annotations

from ipaddress import ip_network

import pytest

from appliance.model import Intent
from appliance.options import WhenDown
from cloud.provider import EntryStatus, Observation, Owner, RouteEntry
from tests.api.conftest import VPC, Appliance, Cli
from tests.api.test_cidrs import PODS, post, refused

AT = f"/v1/cidrs/{PODS}"
ALL = {"mss": "1300", "probe": "tcp:10.244.1.20:80", "when_down": "withdraw", "hold_down": 5.0, "comment": "pods"}


def patch(appliance: Appliance, **body: object) -> dict[str, object]:
    return dict(appliance.daemon.request("PATCH", AT, body)[1])


def way(destination: str) -> Observation:
    made = RouteEntry(
        *(ip_network(destination), "ngw-1", "NatGateway", "vtb-1", "rte-1"), Owner.FOREIGN, EntryStatus.AVAILABLE
    )
    return Observation(VPC, (made,))


def test_every_option_is_taken_shown_and_kept(joined: Appliance) -> None:
    _, made = post(joined, cidr=PODS, snat=False, **ALL)
    assert {name: made[name] for name in ALL} == ALL
    assert joined.daemon.get(AT)["mss"] == "1300"


def test_without_options_a_cidr_has_the_usual_ones(joined: Appliance) -> None:
    _, made = post(joined, cidr=PODS)
    assert (made["mss"], made["probe"], made["when_down"], made["hold_down"]) == ("auto", "", "keep", 30.0)


def test_without_snat_the_operator_is_told_what_the_far_end_needs_as_long_as_it_is_so(joined: Appliance) -> None:
    _, made = post(joined, cidr=PODS, snat=False)
    assert [each["code"] for each in made["warnings"]] == ["return-route"]
    assert joined.daemon.get(AT)["warnings"] == made["warnings"]
    assert patch(joined, snat=True)["warnings"] == []


def test_a_change_leaves_alone_what_it_does_not_name(joined: Appliance) -> None:
    post(joined, cidr=PODS, **ALL)
    changed = patch(joined, mss="off")
    assert {name: changed[name] for name in ALL} == ALL | {"mss": "off"}
    assert patch(joined, probe="")["probe"] == ""


def test_a_change_to_what_is_so_already_writes_nothing(joined: Appliance) -> None:
    post(joined, cidr=PODS, **ALL)
    before = len(joined.changes)
    patch(joined, mss="1300", snat=True)
    assert len(joined.changes) == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"mss": "12"}, "mss"),
        ({"probe": "udp:10.244.1.20:53"}, "probe"),
        ({"probe": "icmp:10.1.1.1"}, "probe"),
        ({"when_down": "drop"}, "when_down"),
        ({"comment": "two\nlines"}, "comment"),
        ({"hold_down": -1}, ""),
        ({"hold_down": False}, ""),
        ({"hold_down": "30"}, ""),
        ({"phase": "present"}, ""),
        ({"via": "nowhere"}, "link-unknown"),
    ],
)
def test_a_bad_option_is_refused_and_changes_nothing(joined: Appliance, body: dict[str, object], code: str) -> None:
    post(joined, cidr=PODS)
    before = joined.daemon.get(AT)
    problem = refused(joined, "PATCH", AT, body)
    assert not code or problem["reasons"][0]["code"] == code
    assert joined.daemon.get(AT) == before


def test_only_what_is_there_and_stays_can_be_changed(joined: Appliance) -> None:
    assert refused(joined, "PATCH", AT, {"mss": "off"})["code"] == "cidr-unknown"
    post(joined, cidr=PODS)
    joined.daemon.request("DELETE", AT)
    assert refused(joined, "PATCH", AT, {"mss": "off"})["code"] == "cidr-leaving"


def test_withdrawing_towards_a_default_route_takes_the_operators_word(joined: Appliance) -> None:
    joined.cloud.observation = way("0.0.0.0/0")
    problem = refused(joined, "POST", "/v1/cidrs", {"cidr": PODS, "when_down": "withdraw"})
    assert problem["reasons"][0]["code"] == "leaves-unprotected"
    assert "--force" in problem["reasons"][0]["next_step"]
    post(joined, cidr=PODS)
    assert refused(joined, "PATCH", AT, {"when_down": "withdraw"})["reasons"][0]["code"] == "leaves-unprotected"
    changed = patch(joined, when_down="withdraw", force=True)
    assert changed["when_down"] == "withdraw"
    assert [each["code"] for each in changed["warnings"]] == ["leaves-unprotected"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("other", "warned"), [("10.0.0.0/8", []), ("10.1.0.0/16", ["no-other-way"])])
def test_withdrawing_is_free_where_another_way_exists(joined: Appliance, other: str, warned: list[str]) -> None:
    joined.cloud.observation = way(other)
    _, made = post(joined, cidr=PODS, when_down="withdraw")
    assert [each["code"] for each in made["warnings"]] == warned


def test_the_command_changes_options(joined: Appliance, cli: Cli) -> None:
    post(joined, cidr=PODS)
    done = cli("cidr", "set", PODS, "--mss", "1300", "--probe", "icmp:10.244.1.20", "--no-snat")
    assert done.returncode == 0, done.stderr
    with joined.store() as store:
        intent = store.get(ip_network(PODS))
    assert isinstance(intent, Intent)
    assert (intent.mss, str(intent.probe), intent.snat) == (1300, "icmp:10.244.1.20", False)
    assert cli("cidr", "set", PODS).returncode == 2
    joined.cloud.observation = way("0.0.0.0/0")
    assert cli("cidr", "set", PODS, "--when-down", "withdraw").returncode == 1
    done = cli("cidr", "set", PODS, "--when-down", "withdraw", "--force")
    assert done.returncode == 0
    assert "unprotected" in done.stderr
    assert WhenDown.WITHDRAW.value in cli("cidr", "ls", "--json").stdout
