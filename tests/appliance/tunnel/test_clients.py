"""Who is let in, and what is on disk of them."""

import stat
import threading
from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest

from appliance.tunnel.clients import (
    JOIN_VALID,
    BadName,
    BadPrefix,
    ClientExists,
    DamagedClient,
    PoolEmpty,
    Registry,
    UnknownClient,
)

NOW = 1_000_000.0
KEY = b"k" * 32


@pytest.fixture
def registry(tmp_path):
    return Registry(
        tmp_path / "clients",
        IPv4Network("100.64.240.0/29"),
        IPv4Address("100.64.240.1"),
        IPv4Address("100.64.240.1"),
        (ip_network("10.244.0.0/16"),),
    )


def test_a_client_keeps_its_address_and_no_two_have_the_same(registry):
    names = ["a", "b", "c"]
    addresses = [registry.add(name, NOW)[0].address for name in names]
    assert len(set(addresses)) == 3
    assert "100.64.240.1" not in addresses
    assert [registry.get(name).address for name in names] == addresses


def test_a_join_secret_enrols_one_key_once(registry):
    _, secret = registry.add("a", NOW)
    assert registry.admit("a", KEY, secret, NOW).joined
    assert registry.admit("a", b"x" * 32, secret, NOW) is None
    assert registry.admit("a", KEY, b"", NOW) is not None


def test_a_client_that_missed_the_answer_to_its_enrolment_comes_in_all_the_same(registry):
    _, secret = registry.add("a", NOW)
    registry.admit("a", KEY, secret, NOW)
    assert registry.admit("a", KEY, secret, NOW) is not None


def test_an_expired_secret_a_short_key_a_wrong_key_and_an_unknown_name_are_refused(registry):
    _, secret = registry.add("a", NOW)
    assert registry.admit("a", KEY, secret, NOW + JOIN_VALID) is None
    assert registry.admit("a", b"short", secret, NOW) is None
    assert registry.admit("a", KEY, b"wrong", NOW) is None
    assert registry.admit("nobody", KEY, secret, NOW) is None
    assert registry.admit("../a", KEY, secret, NOW) is None


def test_no_key_is_no_key(registry):
    """A client that has not joined has an empty hash; nothing hashes to that."""
    registry.add("a", NOW)
    assert registry.admit("a", b"", b"", NOW) is None


def test_neither_key_nor_secret_is_on_disk_and_only_the_owner_reads_the_file(registry, tmp_path):
    _, secret = registry.add("a", NOW)
    registry.admit("a", KEY, secret, NOW)
    file = tmp_path / "clients" / "a.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for hidden in (KEY, secret):
        assert hidden not in file.read_bytes()
        assert hidden.hex().encode() not in file.read_bytes()


def test_a_removed_client_is_unknown(registry):
    registry.add("a", NOW)
    registry.remove("a")
    with pytest.raises(UnknownClient):
        registry.get("a")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"name": "sz"}', b'{"name": "sz", "address": "", "x": 1}']
)
def test_a_damaged_file_costs_its_client_and_nobody_else(registry, tmp_path, content):
    registry.add("sz", NOW)
    _, secret = registry.add("other", NOW)
    (file,) = tmp_path.rglob("sz.json")
    file.write_bytes(content)
    assert [client.name for client in registry.all()] == ["other"]
    assert registry.names() == ("other", "sz")
    assert registry.admit("sz", KEY, b"", NOW) is None
    assert registry.admit("other", KEY, secret, NOW)
    with pytest.raises(DamagedClient, match="gtund client rm sz"):
        registry.get("sz")
    with pytest.raises(DamagedClient):
        registry.add("third", NOW)  # whose address may be the damaged one's?
    registry.remove("sz")
    registry.add("third", NOW)


def test_a_client_that_is_removed_while_it_enrols_stays_removed(registry, monkeypatch):
    _, secret = registry.add("sz", NOW)
    write = Registry._write

    def removing(self, client):
        thread = threading.Thread(target=registry.remove, args=("sz",))
        thread.start()
        thread.join(0.05)  # it would have happened by now, were it not for the lock
        write(self, client)
        threads.append(thread)

    threads: list[threading.Thread] = []
    monkeypatch.setattr(Registry, "_write", removing)
    assert registry.admit("sz", KEY, secret, NOW)
    threads[0].join()
    assert registry.names() == ()


@pytest.mark.parametrize("content", [b"", b"x", b"-1"])
def test_where_the_turn_of_addresses_was_lost_it_begins_anew(registry, tmp_path, content):
    first, _ = registry.add("sz", NOW)
    (turn,) = tmp_path.rglob(".next")
    turn.write_bytes(content)
    second, _ = registry.add("other", NOW)
    assert first.address != second.address


def test_what_cannot_be_added_says_why_and_changes_nothing(registry):
    registry.add("a", NOW)
    with pytest.raises(ClientExists, match="already"):
        registry.add("a", NOW)
    for name in ("", "A", "1a", "../x", "a" * 12, "a b"):
        with pytest.raises(BadName, match="a letter first"):
            registry.add(name, NOW)
    for name in "bcde":
        registry.add(name, NOW)
    with pytest.raises(PoolEmpty, match="remove a client"):
        registry.add("z", NOW)
    assert [client.name for client in registry.all()] == list("abcde")


def test_another_key_takes_over_when_it_is_enrolled_and_the_lease_stays(registry):
    before, secret = registry.add("a", NOW)
    registry.admit("a", KEY, secret, NOW)
    _, again = registry.rotate("a", NOW)
    assert registry.admit("a", KEY, b"", NOW) is not None, "a token that is not spent locks nobody out"
    assert registry.admit("a", b"n" * 32, secret, NOW) is None, "the first token stays spent"
    assert registry.admit("a", b"n" * 32, again, NOW).address == before.address
    assert registry.admit("a", KEY, b"", NOW) is None, "the old key is dead"
    assert registry.admit("a", KEY, again, NOW) is None, "and cannot come back"
    with pytest.raises(UnknownClient):
        registry.rotate("nobody", NOW)


def test_a_token_that_was_rotated_away_is_worth_nothing(registry):
    _, first = registry.add("a", NOW)
    _, second = registry.rotate("a", NOW)
    assert registry.admit("a", KEY, first, NOW) is None
    assert registry.admit("a", KEY, second, NOW) is not None


def test_addresses_go_round_so_that_one_that_was_given_back_rests(registry):
    first = registry.add("a", NOW)[0].address
    registry.remove("a")
    assert first not in [registry.add(name, NOW)[0].address for name in "bcde"]
    assert registry.add("f", NOW)[0].address == first


def test_the_networks_behind_a_client_outlive_its_enrolment(registry):
    networks = (ip_network("172.20.0.0/16"), ip_network("fd00:20::/64"))
    _, secret = registry.add("a", NOW, networks)
    registry.admit("a", KEY, secret, NOW)
    assert registry.get("a").networks == networks


@pytest.mark.parametrize(
    "prefix",
    ["0.0.0.0/0", "::/0", "127.0.0.0/8", "fe80::/64", "224.0.0.0/8", "100.64.0.0/10", "10.244.1.0/24", "172.20.1.0/24"],
)
def test_a_network_that_cannot_lie_behind_a_client_is_refused(registry, prefix):
    registry.add("a", NOW, (ip_network("172.20.0.0/16"),))
    with pytest.raises(BadPrefix, match="behind"):
        registry.add("b", NOW, (ip_network(prefix),))
    assert [client.name for client in registry.all()] == ["a"]
