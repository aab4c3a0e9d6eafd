from ipaddress import ip_network

from appliance.tunnel import nat

SERVED = (ip_network("10.244.0.0/16"), ip_network("10.96.0.0/16"), ip_network("fd00:10:244::/64"))
ZONE = nat.Zone("100.64.240.1", SERVED, "fd00::1")


def test_it_masquerades_towards_what_it_serves_unless_told_not_to():
    rules = nat.render(ZONE)
    assert 'iifname "gt-*" oifname != "gt-*" ip daddr @served masquerade' in rules
    assert 'iifname "gt-*" oifname != "gt-*" ip6 daddr @served6 masquerade' in rules
    assert "masquerade" not in nat.render(nat.Zone("100.64.240.1", SERVED, snat=False))


def test_a_client_reaches_what_is_served_and_not_this_machine():
    rules = nat.render(ZONE)
    assert "elements = { 10.244.0.0/16, 10.96.0.0/16 }" in rules
    assert "elements = { fd00:10:244::/64 }" in rules
    assert 'iifname "gt-*" drop comment "clients do not reach this machine"' in rules


def test_what_nobody_is_routed_to_is_refused_before_what_is_served_is_looked_at():
    rules = nat.render(ZONE)
    assert "100.100.100.200/32" in rules
    assert rules.index("@closed jump") < rules.index("@served ct state")
