from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.legacy.pool import Pool, PoolEmpty

cidrs = st.builds(
    lambda prefix, offset: IPv4Interface(
        f"{IPv4Address(int(IPv4Address('100.64.240.0')) + offset % (1 << (32 - prefix)))}/{prefix}"
    ),
    st.integers(24, 30),
    st.integers(0, 255),
)


@given(cidrs, st.randoms(use_true_random=False), st.lists(st.booleans(), max_size=300))
def test_no_address_is_held_twice_and_none_lies_outside(cidr, random, steps):
    network = cidr.network
    gateway = network.network_address + 1
    pool, held = Pool(cidr, gateway, random.choice), set()
    for number, take in enumerate(steps):
        if take:
            try:
                address = pool.take(str(number % 7))
            except PoolEmpty:
                assert not len(pool)
                continue
            assert address not in held
            assert address in network
            assert cidr.ip <= address < network.broadcast_address
            assert address not in (gateway, network.network_address)
            held.add(address)
        elif held:
            address = min(held)
            held.remove(address)
            pool.give(address)


def test_the_whole_of_the_originals_pool_is_there_but_the_gateway():
    pool = Pool(IPv4Interface("100.64.240.1/24"), IPv4Address("100.64.240.1"))
    assert {pool.take("") for _ in range(253)} == {IPv4Address(f"100.64.240.{last}") for last in range(2, 255)}
    with pytest.raises(PoolEmpty):
        pool.take("")


def test_a_pool_that_begins_late_ends_with_its_network():
    pool = Pool(IPv4Interface("100.64.240.250/24"), IPv4Address("100.64.240.1"))
    assert {str(pool.take("")) for _ in range(len(pool))} == {f"100.64.240.{last}" for last in range(250, 255)}


def test_who_comes_back_finds_its_address_if_nobody_took_it():
    pool = Pool(IPv4Interface("100.64.240.1/24"), IPv4Address("100.64.240.1"), lambda free: free[0])
    first, second = pool.take("home"), pool.take("office")
    pool.give(first)
    pool.give(second)
    assert pool.take("office") == second
    assert pool.take("home") == first


def test_who_has_had_several_gets_the_last_one_back():
    pool = Pool(IPv4Interface("100.64.240.1/24"), IPv4Address("100.64.240.1"), lambda free: free[0])
    first, second = pool.take("home"), pool.take("home")
    for _ in range(3):
        pool.give(first)
        pool.give(second)
        assert pool.take("home") == second
        assert pool.take("home") == first
