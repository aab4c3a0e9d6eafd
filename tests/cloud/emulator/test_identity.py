"""Each instance is told about itself, and role credentials live as long as they say."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pytest

from cloud.emulator.identity import TOKEN_HEADER, TOKEN_TTL_HEADER, Identities
from cloud.emulator.worldfile import BadWorld, MetadataSpec, Role, read_world
from tests.cloud.world import world_file

ROLE = "/latest/meta-data/ram/security-credentials/"


def known(*, require_token: bool = False) -> Identities:
    file = replace(world_file(), metadata=MetadataSpec(require_token), role=Role("nexthop", lifetime_seconds=1200))
    return Identities(file, b"seed", 0.0)


def get(path: str, now: float = 0.0, asker: str = "172.18.2.10", **headers: str) -> tuple[int, str]:
    answer = known().answer(asker, "GET", path, headers, now)
    return answer.status, answer.text


def test_the_asker_is_known_by_its_address() -> None:
    path = "/latest/meta-data/instance-id"
    assert get(path) == (200, "i-nexthop")
    assert get(path, asker="172.18.1.5") == (200, "i-host")
    assert get(path, asker="127.0.0.1") == (200, "i-nexthop")
    assert get(path, asker="172.18.1.6")[0] == 404


def test_folders_list_what_is_in_them() -> None:
    assert get("/latest/meta-data/network/interfaces/macs/") == (200, "00:16:3e:00:02:10/")
    assert get(ROLE) == (200, "nexthop")
    assert get(ROLE, asker="172.18.1.5")[0] == 404


def test_user_data_is_given_to_its_instance_alone_and_by_date_as_cloud_init_asks() -> None:
    file = world_file()
    started = replace(file.instance[0], user_data="#cloud-config\n")
    all_of_them = Identities(replace(file, instance=(started, *file.instance[1:])), b"seed", 0.0)
    for path in ("/latest/user-data", "/2016-01-01/user-data"):
        assert all_of_them.answer(str(started.ip), "GET", path, {}, 0.0).text == "#cloud-config\n"
        assert all_of_them.answer(str(file.instance[1].ip), "GET", path, {}, 0.0).status == 404
    assert all_of_them.answer(str(started.ip), "GET", "/2016-01-01/meta-data/instance-id", {}, 0.0).text == started.id


def test_the_key_pair_of_an_instance_is_listed_by_its_name() -> None:
    file = world_file()
    started = replace(file.instance[0], public_key="ssh-ed25519 AAAA")
    all_of_them = Identities(replace(file, instance=(started, *file.instance[1:])), b"seed", 0.0)
    listed = "/2016-01-01/meta-data/public-keys/"
    (name,) = all_of_them.answer(str(started.ip), "GET", listed, {}, 0.0).text.split()
    assert all_of_them.answer(str(started.ip), "GET", f"{listed}{name}openssh-key", {}, 0.0).text == "ssh-ed25519 AAAA"
    assert all_of_them.answer(str(file.instance[1].ip), "GET", listed, {}, 0.0).status == 404


def test_a_token_is_good_for_its_time_and_its_instance() -> None:
    here = known(require_token=True)
    path = "/latest/meta-data/instance-id"
    assert here.answer("172.18.2.10", "GET", path, {}, 0.0).status == 403
    asked = {TOKEN_TTL_HEADER: "60"}
    token = {TOKEN_HEADER: here.answer("172.18.2.10", "PUT", "/latest/api/token", asked, 0.0).text}
    assert here.answer("172.18.2.10", "GET", path, token, 59.0).text == "i-nexthop"
    assert here.answer("172.18.2.10", "GET", path, token, 60.0).status == 403
    assert here.answer("172.18.1.5", "GET", path, token, 1.0).status == 403


@pytest.mark.parametrize(("ttl", "status"), [("", 400), ("0", 400), ("21601", 400), ("x", 400), ("21600", 200)])
def test_a_token_lives_one_second_to_six_hours(ttl: str, status: int) -> None:
    assert known().answer("172.18.2.10", "PUT", "/latest/api/token", {TOKEN_TTL_HEADER: ttl}, 0.0).status == status


def test_no_token_through_a_proxy() -> None:
    headers = {TOKEN_TTL_HEADER: "60", "x-forwarded-for": "10.0.0.1"}
    assert known().answer("172.18.2.10", "PUT", "/latest/api/token", headers, 0.0).status == 403


def test_role_credentials_are_renewed_before_they_expire_and_the_old_ones_serve_to_their_end() -> None:
    first, same, second = (json.loads(get(ROLE + "nexthop", now)[1]) for now in (0.0, 1099.0, 1100.0))
    assert first == same
    assert first["AccessKeyId"] != second["AccessKeyId"]
    assert datetime.fromisoformat(first["Expiration"]).timestamp() == 1200.0
    old = known().secret_of(first["AccessKeyId"], 1150.0)
    assert old is not None
    assert (old.secret, old.token, old.expires) == (first["AccessKeySecret"], first["SecurityToken"], 1200.0)


WORLD = """
region = "cn-shenzhen"
[listen]
api = "127.0.0.1:0"
metadata = "127.0.0.1:0"
[vpc]
id = "vpc-1"
cidr = "172.18.0.0/16"
[[route_table]]
id = "vtb-1"
type = "System"
[[vswitch]]
id = "vsw-1"
cidr = "172.18.1.0/24"
zone = "a"
table = "vtb-1"
"""
INSTANCE = '[[instance]]\nid = "i"\nip = "172.18.1.5"\nvswitch = "vsw-1"\neni = "e"\nmac = "m"\n'


def test_a_world_without_a_router_needs_no_interfaces() -> None:
    assert read_world(WORLD + INSTANCE).instance[0].eip is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (WORLD + "[router]\nkernel = true\n", "an interface for every vswitch"),
        (WORLD + '[router]\ninternet_interface = "wan0"\n', "both, or neither"),
        (WORLD + "nonsense = 1\n", r"unknown key vswitch\[0\]\.nonsense"),
        (WORLD.replace("172.18.1.0/24", "10.0.0.0/24"), "inside 172"),
        (WORLD.replace('type = "System"', 'type = "Custom"'), "exactly one"),
        (WORLD.replace('table = "vtb-1"', 'table = "vtb-9"'), "one of"),
        (WORLD.replace('api = "127.0.0.1:0"', 'api = "127.0.0.1"'), "ADDRESS:PORT"),
        (WORLD.replace('zone = "a"', "zone = 1"), "should be: a str"),
        (WORLD.replace('zone = "a"', ""), "zone is missing"),
        (WORLD + INSTANCE.replace("172.18.1.5", "172.18.2.5"), "inside its vswitch"),
        (WORLD + INSTANCE + "role = true\n", "a \\[role\\]"),
        (WORLD + INSTANCE + INSTANCE, "every instance once"),
        ("[", "not TOML"),
    ],
)
def test_a_world_that_contradicts_itself_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(BadWorld, match=complaint):
        read_world(text)
