"""Full datagrams that vanish without a word are told from loss that hits all alike."""

import random

import pytest

from appliance.tunnel.blackhole import BlackHole, next_smaller

EVERY = 0.25


def seconds_until_found(short_loss, full_loss, *, limit=120.0, seed=1):
    """Play a path that loses these shares of probes or their echoes; return when it was found to swallow, or None."""
    holes, chance, now = BlackHole(), random.Random(seed), 0.0
    while now < limit:
        if holes.swallows(now):
            return now
        full = holes.full(suspected=True)
        holes.sent(now, full=full)
        if chance.random() >= (full_loss if full else short_loss):
            holes.echoed(now)
        now += EVERY
    return None


@pytest.mark.parametrize("seed", range(5))
def test_a_path_that_swallows_full_datagrams_is_found_in_seconds(seed):
    found = seconds_until_found(0.0, 1.0, seed=seed)
    assert found is not None
    assert found < 8
    assert seconds_until_found(0.1, 1.0, seed=seed) is not None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.2, 0.36, 0.6])
def test_loss_by_chance_is_not_taken_for_it(loss, seed):
    assert seconds_until_found(loss, loss, limit=1200.0, seed=seed) is None


def test_where_nothing_passes_nothing_is_said_of_sizes():
    assert seconds_until_found(1.0, 1.0) is None


def test_a_path_that_loses_nothing_has_no_full_probes_to_carry():
    holes = BlackHole()
    assert not any(holes.full(suspected=False) for _ in range(10))


def test_it_begins_anew_after_a_yes():
    holes = BlackHole()
    for number in range(20):
        holes.sent(float(number), full=True)
    assert holes.swallows(100.0)
    assert not holes.swallows(100.0)


@pytest.mark.parametrize(("mtu", "smaller"), [(9000, 1500), (1500, 1460), (1450, 1400), (1300, 1280), (576, 576)])
def test_what_is_tried_next_is_smaller_until_nothing_is(mtu, smaller):
    assert next_smaller(mtu) == smaller
