"""Both firewalls against the real kernel: what is written reads back, drift is mended, what is foreign is untouched."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from appliance.kernel.firewall import Backend, FirewallError
from appliance.kernel.probe import verdict
from appliance.kernel.rules import Rules

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Space

pytestmark = pytest.mark.lab

POD, SERVICE = (ip_network("10.244.0.0/16"), "tun-hk"), (ip_network("10.96.0.0/16"), "tun-hk")
POD6 = (ip_network("fd00:10:244::/48"), "tun-hk")
OWN = (ip_network("100.64.240.0/24"), "tun-hk")
HK = frozenset({"tun-hk"})
USUAL = Rules(masquerade=frozenset({POD, SERVICE}), forward=HK, clamp=HK, vpc="eth0")
KINDS = {
    "nothing": Rules(),
    "no CIDR": Rules(vpc="eth0"),
    "a link without a CIDR": Rules(forward=HK, clamp=HK, vpc="eth0"),
    "two CIDRs": USUAL,
    "source kept": Rules(masquerade=frozenset({POD}), plain=frozenset({SERVICE}), forward=HK, vpc="eth0"),
    "one address": Rules(masquerade=frozenset({(ip_network("10.9.9.9/32"), "tun-hk")}), forward=HK, vpc="eth0"),
    "everything": Rules(masquerade=frozenset({(ip_network("0.0.0.0/0"), "tun-hk")}), forward=HK, vpc="eth0"),
    "MSS per CIDR": Rules(
        masquerade=frozenset({POD, SERVICE, POD6}),
        mss=frozenset({(*POD, 1300), (*SERVICE, 0), (*POD6, 1220)}),
        forward=HK,
        clamp=HK,
        vpc="eth0",
    ),
    "MSS of everything": Rules(
        plain=frozenset({(ip_network("0.0.0.0/0"), "tun-hk")}),
        mss=frozenset({(ip_network("0.0.0.0/0"), "tun-hk", 1300)}),
        forward=HK,
        vpc="eth0",
    ),
    "IPv6 alone": Rules(masquerade=frozenset({POD6}), forward=HK, clamp=HK, vpc="eth0"),
    "everything IPv6": Rules(plain=frozenset({(ip_network("::/0"), "tun-hk")}), forward=HK, vpc="eth0"),
    "both families, two links": Rules(
        masquerade=frozenset({POD, POD6, (ip_network("10.0.0.0/8"), "tun-us")}),
        plain=frozenset({SERVICE}),
        forward=frozenset({"tun-hk", "tun-us"}),
        clamp=frozenset({"tun-us"}),
        vpc="ens5.100",
    ),
    "guarded, the far end asks nothing": replace(USUAL, guarded=HK, own=frozenset({OWN})),
    "guarded, the far end may ask": replace(USUAL, guarded=HK, own=frozenset({OWN}), inbound=HK),
    "guarded before anything is known": Rules(guarded=HK),
    "guarded in IPv6, two tunnels with one subnet": Rules(
        masquerade=frozenset({POD, POD6}),
        forward=frozenset({"tun-hk", "tun-us"}),
        clamp=HK,
        vpc="eth0",
        guarded=frozenset({"tun-hk", "tun-us"}),
        inbound=frozenset({"tun-us"}),
        own=frozenset({OWN, (OWN[0], "tun-us"), (ip_network("fd64::/64"), "tun-hk")}),
        six=True,
    ),
}
FOREIGN = """
for t in iptables-legacy ip6tables-legacy; do
$t -P FORWARD DROP; $t -N DOCKER; $t -A FORWARD -o docker0 -j DOCKER; $t -A DOCKER -p tcp --dport 80 -j ACCEPT
$t -t nat -A POSTROUTING -o eth7 -j MASQUERADE; $t -t mangle -A FORWARD -o eth7 -j MARK --set-mark 7
done
nft -f - <<end
table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; iifname "docker0" accept; }; }
table inet other { set s { type ipv4_addr; elements = { 1.2.3.4 }; }
chain c { type nat hook postrouting priority 100; oifname "eth7" masquerade; }; }
end
"""
SETS = (
    f"{sys.executable} -c 'from appliance.kernel import ipset\n"
    "for name in sorted(ipset.names(4) | ipset.names(6)): print(name, sorted(ipset.members(name)))'"
)
SNAPSHOT = f"iptables-legacy-save; ip6tables-legacy-save; nft list ruleset; {SETS}"


def _without_ours(text: str) -> str:
    text = re.sub(r"(?m)^(#.*|.*NEXTHOP.*|nexthop\d-.*)\n", "", re.sub(r"\[\d+:\d+\]", "", text))
    return re.sub(r"(?ms)^table inet nexthop \{.*?^\}\n", "", text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_reads_back_and_is_written_once(firewall: Backend, space: Space, kind: str) -> None:
    with space.entered():
        assert not firewall.holds(KINDS[kind])
        firewall.write(KINDS[kind])
        assert firewall.holds(KINDS[kind])
        done = firewall.writes
        firewall.write(KINDS[kind])
        assert firewall.writes == done


def test_every_rule_set_can_follow_every_other(firewall: Backend, space: Space) -> None:
    """Go round with ever wider steps."""
    kinds = list(KINDS.values())
    with space.entered():
        at = 0
        for width in range(1, len(kinds)):
            for _ in range(len(kinds)):
                before, at = at, (at + width) % len(kinds)
                firewall.write(kinds[at])
                assert firewall.holds(kinds[at])
                assert not firewall.holds(kinds[before])


def test_foreign_rules_are_the_same_after_write_rewrite_and_purge(firewall: Backend, space: Space) -> None:
    space.sh(FOREIGN)
    before = space.sh(SNAPSHOT)
    with space.entered():
        for rules in KINDS.values():
            firewall.write(rules)
            assert _without_ours(space.sh(SNAPSHOT)) == _without_ours(before)
        firewall.purge()
    after = space.sh(SNAPSHOT)
    assert "nexthop" not in after.lower()
    assert _without_ours(after) == _without_ours(before)
    assert "policy drop" in after
    assert ":FORWARD DROP" in after


def test_purge_of_nothing_is_no_write_and_makes_no_table(firewall: Backend, space: Space) -> None:
    with space.entered():
        firewall.purge()
        assert firewall.writes == 0
    names = space.sh(
        "cat /proc/thread-self/net/ip_tables_names /proc/thread-self/net/ip6_tables_names; nft list tables"
    )
    assert names == ""


_IPSET = f"{sys.executable} -c \"from appliance.kernel import ipset; name = 'nexthop4-tun-hk-s'; ipset.{{}}\""
DRIFT = {
    "iptables": {
        "a rule removed": "iptables-legacy -t nat -D NEXTHOP-POSTROUTING 1",
        "a forward rule removed": "iptables-legacy -D NEXTHOP-FORWARD 3",
        "a chain flushed": "iptables-legacy -F NEXTHOP-FORWARD",
        "all flushed": "for t in filter nat mangle; do iptables-legacy -t $t -F; done",
        "all deleted": "for t in filter nat mangle; do iptables-legacy -t $t -F; iptables-legacy -t $t -X; done",
        "the jump removed": "iptables-legacy -D FORWARD 1",
        "the jump no longer first": "iptables-legacy -I FORWARD -j DROP",
        "the jump there twice": "iptables-legacy -A FORWARD -j NEXTHOP-FORWARD",
        "the jump with a condition": (
            "iptables-legacy -D FORWARD 1; iptables-legacy -I FORWARD -i eth9 -m comment --comment nexthop "
            "-j NEXTHOP-FORWARD"
        ),
        "an extra rule": "iptables-legacy -I NEXTHOP-FORWARD -s 6.6.6.6 -j ACCEPT",
        "an extra rule of our shape": (
            "iptables-legacy -t mangle -A NEXTHOP-MANGLE -i tun-x -p tcp --tcp-flags SYN,RST SYN -m comment "
            "--comment nexthop -j TCPMSS --clamp-mss-to-pmtu"
        ),
        "another clamp": (
            "iptables-legacy -t mangle -R NEXTHOP-MANGLE 1 -o tun-hk -p tcp --tcp-flags SYN,RST SYN -m comment "
            "--comment nexthop -j TCPMSS --set-mss 536"
        ),
        "the order changed": (
            "iptables-legacy -t mangle -A NEXTHOP-MANGLE -o tun-hk -p tcp --tcp-flags SYN,RST SYN -m comment "
            "--comment nexthop -j TCPMSS --clamp-mss-to-pmtu; iptables-legacy -t mangle -D NEXTHOP-MANGLE 1"
        ),
        "an element removed": _IPSET.format("remove(name, [(0x0af40000, 16)])"),
        "an element added": _IPSET.format("add(name, [(0x01020300, 24)])"),
        "a set emptied": _IPSET.format("remove(name, ipset.members(name))"),
        "a set of our name": _IPSET.format("create('nexthop4-tun-x-s')"),
        "a set replaced": (
            "for t in filter nat mangle; do iptables-legacy -t $t -F; done; "
            + _IPSET.format("destroy(name); ipset.create(name)")
        ),
        "a wildcard for a device": (
            "iptables-legacy -R NEXTHOP-FORWARD 1 -o tun-hk+ -m conntrack --ctstate INVALID -m comment "
            "--comment nexthop -j DROP"
        ),
    },
    "nftables": {
        "a rule removed": "nft delete rule inet nexthop postrouting handle $(H postrouting 1)",
        "a chain flushed": "nft flush chain inet nexthop forward",
        "the table flushed": "nft flush table inet nexthop",
        "the rule set flushed": "nft flush ruleset",
        "an extra rule": "nft insert rule inet nexthop forward ip saddr 6.6.6.6 accept",
        "an extra rule of our shape": 'nft add rule inet nexthop forward oifname "tun-x" ct state invalid drop '
        'comment \\"nexthop\\"',
        "an extra chain": "nft add chain inet nexthop more",
        "an extra set": "nft 'add set inet nexthop more { type ipv4_addr; }'",
        "another policy": "nft 'chain inet nexthop forward { policy drop; }'",
        "a condition more": "nft replace rule inet nexthop postrouting handle $(H postrouting 1) "
        'oifname "tun-hk" ip daddr 10.96.0.0/16 tcp dport 80 masquerade comment \\"nexthop\\"',
        "masqueraded otherwise": "nft replace rule inet nexthop postrouting handle $(H postrouting 1) "
        'oifname "tun-hk" ip daddr 10.96.0.0/16 masquerade random comment \\"nexthop\\"',
        "an element removed": "nft delete element inet nexthop nexthop4-tun-hk-s '{ 10.244.0.0/16 }'",
        "an element added": "nft add element inet nexthop nexthop4-tun-hk-s '{ 1.2.3.0/24 }'",
        "a range added": "nft add element inet nexthop nexthop4-tun-hk-s '{ 1.2.3.4-1.2.3.6 }'",
        "a set emptied": "nft flush set inet nexthop nexthop4-tun-hk-s",
        "a set of our name": "nft 'add set inet nexthop nexthop4-tun-x-s { type ipv4_addr; flags interval; }'",
        "the order changed": "h=$(H forward 1); nft delete rule inet nexthop forward handle $h; "
        'nft add rule inet nexthop forward oifname "tun-hk" ct state invalid counter drop comment \\"nexthop\\"',
    },
}
_HANDLE = "H() { nft -a list chain inet nexthop $1 | sed -n 's/.*# handle //p' | sed -n $(($2 + 1))p; }\n"


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, faults in DRIFT.items() for fault in faults])
def test_drift_is_seen_and_mended(space: Space, name: str, fault: str) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    firewall = backend(name)
    with space.entered():
        firewall.write(USUAL)
        before = space.sh(SNAPSHOT)
        space.sh(_HANDLE + DRIFT[name][fault])
        assert space.sh(SNAPSHOT) != before, "the fault did nothing"
        assert not firewall.holds(USUAL)
        firewall.write(USUAL)
        assert firewall.holds(USUAL)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("iptables", "iptables-legacy -D INPUT 1"),
        ("iptables", "iptables-legacy -F NEXTHOP-INPUT"),
        ("iptables", "iptables-legacy -D NEXTHOP-INPUT -i tun-hk -m comment --comment nexthop -j DROP"),
        ("iptables", "iptables-legacy -R NEXTHOP-INPUT 2 -i tun-hk -m comment --comment nexthop -j RETURN"),
        ("iptables", "ip6tables-legacy -F NEXTHOP-INPUT"),
        ("nftables", "nft flush chain inet nexthop input"),
        ("nftables", "nft delete element inet nexthop nexthop4-closed '{ 100.64.0.0/10 }'"),
        ("nftables", "nft add element inet nexthop nexthop4-tun-hk-own '{ 172.18.0.0/16 }'"),
        ("nftables", "nft insert rule inet nexthop input iifname tun-hk meta l4proto tcp return comment nexthop"),
    ],
)
def test_a_guard_that_drifts_is_seen_and_mended(space: Space, name: str, fault: str) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    firewall, rules = backend(name), KINDS["guarded in IPv6, two tunnels with one subnet"]
    with space.entered():
        firewall.write(rules)
        before = space.sh(SNAPSHOT)
        space.sh(fault)
        assert space.sh(SNAPSHOT) != before, "the fault did nothing"
        assert not firewall.holds(rules)
        firewall.write(rules)
        assert firewall.holds(rules)


@pytest.mark.iptables
def test_ipv6_rules_that_drift_are_seen_and_mended(space: Space) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    firewall = backend("iptables")
    both = KINDS["both families, two links"]
    with space.entered():
        firewall.write(both)
        for fault in (
            "ip6tables-legacy -t nat -F",
            "ip6tables-legacy -F NEXTHOP-FORWARD",
            "ip6tables-legacy -D FORWARD 1",
        ):
            space.sh(fault)
            assert not firewall.holds(both)
            firewall.write(both)
            assert firewall.holds(both)


@pytest.mark.iptables
def test_without_an_ipv6_cidr_the_ipv6_tables_are_not_even_loaded(space: Space) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    with space.entered():
        backend("iptables").write(USUAL)
    assert space.sh("cat /proc/thread-self/net/ip6_tables_names") == ""


@pytest.mark.iptables
def test_a_chain_of_others_that_jumps_to_ours_does_not_stop_a_purge(space: Space) -> None:
    from appliance.kernel.choose import backend  # noqa: PLC0415

    firewall = backend("iptables")
    with space.entered():
        firewall.write(USUAL)
        space.sh("iptables-legacy -N MINE; iptables-legacy -A MINE -s 1.2.3.4 -j NEXTHOP-FORWARD")
        space.sh("iptables-legacy -A MINE -j DROP")
        firewall.purge()
    assert "NEXTHOP" not in space.sh("iptables-legacy-save")
    assert "-A MINE -j DROP" in space.sh("iptables-legacy-save")


@pytest.mark.iptables
def test_the_lock_of_the_iptables_commands_is_respected(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.kernel import iptables, xtables  # noqa: PLC0415

    lock = tmp_path / "xtables.lock"
    monkeypatch.setattr(xtables, "LOCK", lock)
    monkeypatch.setattr(xtables, "LOCK_WAIT", 0.05)
    firewall = iptables.Iptables()
    with space.entered():
        firewall.write(Rules(vpc="eth0"))
        assert lock.stat().st_mode & 0o777 == 0o600
        holder = os.open(lock, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(FirewallError, match="another program has held"):
            firewall.write(USUAL)
        assert set(verdict("iptables").values()) == {None}, "a busy lock is taken for a shape that cannot be held"
        os.close(holder)
        firewall.write(USUAL)
        assert firewall.holds(USUAL)


@pytest.mark.iptables
def test_tables_whose_names_may_not_be_read_are_told_and_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.kernel import xtables  # noqa: PLC0415

    monkeypatch.setattr(xtables, "NAMES", tmp_path / "ip_tables_names")
    assert xtables.loaded(4) == frozenset()
    (tmp_path / "ip_tables_names").mkdir()  # not even root can read that
    with pytest.raises(FirewallError, match=r"cannot read .*ip_tables_names: .*root's group"):
        xtables.loaded(4)


def test_one_more_of_a_thousand_cidrs_is_one_write_of_one_element(firewall: Backend, space: Space) -> None:
    many = frozenset((ip_network((10 << 24 | number << 8, 24)), "tun-hk") for number in range(1001))
    rules = [Rules(masquerade=frozenset(each), forward=HK, clamp=HK, vpc="eth0") for each in (sorted(many)[1:], many)]
    with space.entered():
        for each in (*rules, *rules):
            before = firewall.writes
            firewall.write(each)
            assert firewall.holds(each)
        assert firewall.writes == before + 1
