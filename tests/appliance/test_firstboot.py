"""firstboot.yaml is read whole or refused by name, and never quoted where it may hold a token."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config import parse
from appliance.firstboot import BadFirstBoot, Role, build, read, toml
from appliance.tunnel import token as join_token

TOKEN = join_token.encode(join_token.JoinToken("203.0.113.10", 9443, "ab" * 32, "shenzhen", "c2VjcmV0" * 4))


def test_an_appliance_with_a_link_two_cidrs_and_a_setting() -> None:
    found = read(f"""
role: appliance
links:
  hk: {TOKEN}
cidrs:
  - 10.244.0.0/16
  - {{cidr: 10.96.0.0/16, via: hk, snat: false}}
cloud: {{route_tables: [vtb-1, vtb-2]}}
""")
    assert found.role is Role.APPLIANCE
    assert found.links == {"hk": TOKEN}
    assert found.cidrs == ({"cidr": "10.244.0.0/16"}, {"cidr": "10.96.0.0/16", "via": "hk", "snat": False})
    assert parse(found.config).cloud.route_tables == ("vtb-1", "vtb-2")
    assert TOKEN not in repr(found)


def test_the_least_there_is() -> None:
    found = read("role: appliance\n")
    assert (found.links, found.cidrs, parse(found.config)) == ({}, (), parse(""))


def test_a_far_end() -> None:
    found = read("role: gtund\nserver: {public: '203.0.113.10:9443'}\ntunnel: {serve: [10.244.0.0/16], snat: true}\n")
    assert found.role is Role.GTUND
    assert tomllib.loads(found.config) == {
        "server": {"public": "203.0.113.10:9443"},
        "tunnel": {"serve": ["10.244.0.0/16"], "snat": True},
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "role: appliance"),
        ("- a\n- b\n", "role: appliance"),
        ("role: router\n", "role is missing or unknown"),
        ("role: [appliance]\n", "role is missing or unknown"),
        ("role: appliance\nlinks: {hk: nexthop1_wrong}\n", "links.hk"),
        ("role: appliance\nlinks: {hk: 12}\n", "links.hk"),
        (f"role: appliance\nlinks: {{Hong Kong: {TOKEN}}}\n", "'Hong Kong'"),
        ("role: appliance\nlinks: [a]\n", "NAME: TOKEN"),
        ("role: appliance\ncidrs: 10.0.0.0/8\n", "write a list"),
        ("role: appliance\ncidrs: [10.0.0.1/8]\n", "10.0.0.1/8 has host bits"),
        ("role: appliance\ncidrs: [[10.0.0.0/8]]\n", "write each as CIDR"),
        ("role: appliance\ncidrs: [{cidr: 10.0.0.0/8, via: hk}]\n", "not among the links"),
        (f"role: appliance\nlinks: {{a: {TOKEN}, b: {TOKEN}}}\ncidrs: [10.0.0.0/8]\n", "several links"),
        ("role: appliance\ncloud: {no-such: 1}\n", "unknown key cloud.no-such"),
        ("role: appliance\nserver: {public: 'a:1'}\n", "unknown section or key 'server'"),
        ("role: appliance\ncloud: aliyun\n", "cloud is a section"),
        ("role: appliance\ncloud: {endpoint: null}\n", "cloud.endpoint"),
        ("role: gtund\n", "server.public is missing"),
        ("role: gtund\nserver: {public: 'a:1'}\n", "tunnel.serve is missing"),
        ("role: gtund\nserver: {public: 'a:1'}\ntunnel: {serve: [10.0.0.0/8]}\ncidrs: {}\n", "cidrs is not for gtund"),
        (
            "role: gtund\nserver: {public: 'a:1', pubic: x}\ntunnel: {serve: [10.0.0.0/8]}\n",
            "[server] pubic is not known",
        ),
        ("role: gtund\nserver: {public: 'a'}\ntunnel: {serve: [10.0.0.0/8]}\n", "write host:port"),
        ("role: gtund\nserver: {public: 'a:1'}\ntunnel: {serve: [10.0.0.1/8]}\n", "has host bits set"),
        ("role: appliance\n  cidrs: [\n", "line 2"),
        ("role: \x00\n", "characters that no text has"),
    ],
)
def test_what_will_not_do_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(BadFirstBoot) as refusal:
        read(text)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("damage", [": :", "\n - x", "'", "\t{", "\n\x01"])
def test_no_error_quotes_a_token(damage: str) -> None:
    with pytest.raises(BadFirstBoot) as refusal:
        read(f"role: appliance\nlinks:\n  hk: {TOKEN}{damage}\n")
    assert TOKEN[:24] not in str(refusal.value)


_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-_ é", max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.dictionaries(st.text(max_size=4), _VALUES)))
def test_sections_come_out_of_toml_as_they_went_in(sections) -> None:
    assert tomllib.loads(toml(sections)) == sections


def test_what_setup_asks_is_held_to_the_same_rules() -> None:
    with pytest.raises(BadFirstBoot):
        build({"role": "appliance", "cidrs": ["all of it"]})
