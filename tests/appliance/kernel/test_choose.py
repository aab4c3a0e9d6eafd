"""The preferred firewall is used if it can hold what we need; if not, the other, and the reason is told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from appliance.kernel.choose import choose, probe
from appliance.kernel.firewall import FirewallError
from appliance.kernel.probe import CASES, words
from appliance.kernel.rules import Action, Rules, layout, version_of
from tests.conftest import iptables_fault

from .test_backends import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def _ask(**faults: Mapping[str, str | None]) -> Callable[[str], Mapping[str, str | None]]:
    return lambda name: dict.fromkeys(CASES) | dict(faults.get(name, {}))


CLAMP = {"TCPMSS clamp-mss-to-pmtu": "can't commit: Invalid argument"}
SIX = {"IPv6 MASQUERADE": "can't initialize nat: Table does not exist"}


@pytest.mark.parametrize("name", ["iptables", "nftables"])
def test_the_preferred_one_is_chosen_when_it_can_hold_everything(name: str) -> None:
    chosen = choose(name, ask=_ask())
    assert (chosen.firewall.name, chosen.fallback_reason, chosen.v6_fault) == (name, None, None)
    assert [other.name for other in chosen.others] == [{"iptables", "nftables"}.difference({name}).pop()]


def test_the_other_takes_over_and_the_reason_names_the_rule() -> None:
    chosen = choose("iptables", ask=_ask(iptables=CLAMP))
    assert chosen.firewall.name == "nftables"
    assert chosen.fallback_reason is not None
    assert "TCPMSS clamp-mss-to-pmtu" in chosen.fallback_reason
    assert "Invalid argument" in chosen.fallback_reason


def test_missing_ipv6_tables_count_only_where_ipv6_is_wanted() -> None:
    chosen = choose("iptables", ask=_ask(iptables=SIX))
    assert (chosen.firewall.name, chosen.fallback_reason) == ("iptables", None)
    assert chosen.v6_fault is not None
    assert "IPv6 MASQUERADE" in chosen.v6_fault
    assert choose("iptables", v6=True, ask=_ask(iptables=SIX)).firewall.name == "nftables"


def test_none_that_works_is_an_error_with_both_reasons() -> None:
    with pytest.raises(FirewallError, match=r"iptables.*TCPMSS.*nftables.*no nft"):
        choose("iptables", ask=_ask(iptables=CLAMP, nftables={"the hooks": "there is no nft program"}))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="iptables, nftables"):
        choose("pf")


def test_the_probe_tries_every_shape_of_rule() -> None:
    def shapes(rules: Rules) -> set[object]:
        versions = {network.version for network, _ in rules.carried} or {4}
        return {
            (line.chain, line.action, line.state, version)
            for line in layout(rules).lines
            for version in ({version_of(line.destination)} if line.destination else versions)
        }

    tried = set[object]().union(*(shapes(rules) for rules in CASES.values()))
    assert set[object]().union(*(shapes(rules) for rules in KINDS.values())) <= tried


@pytest.mark.lab
@pytest.mark.parametrize("name", ["iptables", "nftables"])
def test_the_probe_finds_that_this_machine_can(name: str) -> None:
    assert probe(name) == dict.fromkeys(CASES)


@pytest.mark.lab
def test_a_missing_program_is_a_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all("install nftables" in (text or "") for text in probe("nftables").values())


def test_a_child_that_dies_is_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "status 1" in (probe("iptables")["any rule"] or "")


@pytest.mark.lab
def test_on_a_machine_where_iptables_cannot_hold_a_rule_nftables_takes_over() -> None:
    fault = iptables_fault()
    if fault is None:
        pytest.skip("python-iptables holds every rule here; on Debian 13 it does not")
    chosen = choose("iptables")
    assert chosen.firewall.name == "nftables"
    assert fault in (chosen.fallback_reason or "")


def test_where_no_namespace_can_be_made_a_rule_that_cannot_be_put_into_words_is_found_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(words("nftables").values()) == {None}

    def shape(version: int, action: Action, _state: object) -> bytes:
        if action is Action.CLAMP:
            raise FirewallError(f"no such parameter, IPv{version}")
        return b""

    monkeypatch.setattr("appliance.kernel.shapes.shape", shape)
    faults = {case: text for case, text in words("iptables").items() if text}
    assert set(faults) == {"TCPMSS clamp-mss-to-pmtu", "IPv6 TCPMSS clamp-mss-to-pmtu"}
    assert choose("iptables", ask=words).firewall.name == "nftables"
