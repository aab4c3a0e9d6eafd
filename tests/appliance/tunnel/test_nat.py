from ipaddress import IPv4Network

from appliance.tunnel import nat

SUBNET, SERVED = IPv4Network("100.64.240.0/24"), (IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/16"))


def test_it_masquerades_towards_what_it_serves_unless_told_not_to():
    assert "ip saddr 100.64.240.0/24 ip daddr @served" in nat.render(SUBNET, "100.64.240.1", SERVED, snat=True)
    assert "masquerade" not in nat.render(SUBNET, "100.64.240.1", SERVED, snat=False)


def test_a_client_reaches_what_is_served_and_not_this_machine():
    rules = nat.render(SUBNET, "100.64.240.1", SERVED, snat=True)
    assert "elements = { 10.244.0.0/16, 10.96.0.0/16 }" in rules
    assert 'iifname "gt-*" counter drop' in rules
