import random

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.copies import Losses, Seen, Tickets

SMALL = 1500
NONE = (0, 0)


@given(st.integers(1, 5), st.integers(1, 80), st.randoms(use_true_random=False))
def test_over_any_interleaving_of_ordered_ways_each_packet_counts_once_and_in_order(ways, packets, chance):
    tickets, seen = Tickets(), Seen()
    sent = [tickets.draw(1, SMALL, 0.0) for _ in range(packets)]
    lines, got = [list(sent) for _ in range(ways)], []
    while lines:
        line = chance.choice(lines)
        ticket = line.pop(0)
        if seen.first(ticket):
            got.append(ticket)
        lines = [line for line in lines if line]
    assert got == sent


def test_a_flow_is_young_for_a_while_and_again_after_a_pause():
    tickets = Tickets()
    while tickets.draw(1, SMALL, 0.0) is not None:
        pass
    assert tickets.draw(1, SMALL, 1.0) is None
    assert tickets.draw(1, SMALL, 4.0) is not None


def test_a_flow_that_is_young_again_is_not_taken_for_what_came_before():
    tickets, seen = Tickets(), Seen()
    assert all(seen.first(tickets.draw(1, SMALL, now) or NONE) for now in (0.0, 0.1, 9.0, 9.1))


def test_flows_have_tickets_of_their_own():
    tickets, seen = Tickets(), Seen()
    assert all(seen.first(tickets.draw(flow, SMALL, 0.0) or NONE) for flow in (1, 2, 1, 2))


def grown(tickets: Tickets, flow: int) -> None:
    while tickets.draw(flow, SMALL, 0.0) is not None:
        pass


def test_a_flow_that_has_grown_goes_the_fastest_way_and_stays_there():
    tickets, rates = Tickets(), {"slow": 1.0, "fast": 9.0}
    grown(tickets, 1)
    assert tickets.way(1, rates, rates.__getitem__, 0.0) == "fast"
    rates["slow"] = 99.0
    assert tickets.way(1, rates, rates.__getitem__, 0.0) == "fast"
    del rates["fast"]
    assert tickets.way(1, rates, rates.__getitem__, 0.0) == "slow"


def test_flows_that_have_grown_share_the_ways():
    tickets, rates = Tickets(), dict.fromkeys("abcd", 1.0)
    for flow in range(8):
        grown(tickets, flow)
    taken = [tickets.way(flow, rates, rates.__getitem__, 0.0) for flow in range(8)]
    assert sorted(taken) == sorted("abcd" * 2)


def test_what_is_remembered_is_bounded():
    tickets, seen = Tickets(), Seen()
    for flow in random.Random(1).choices(range(1 << 20), k=5000):
        ticket = tickets.draw(flow, SMALL, 0.0)
        assert ticket is None or seen.first(ticket)
    assert sum(flow in tickets for flow in range(1 << 20)) <= 1024


def test_a_line_that_nothing_is_known_of_may_be_lossy():
    assert Losses().heard(100, 0)


def test_a_line_is_what_it_was_lately():
    losses, sent, again = Losses(), 0, 0
    for _ in range(100):
        sent += 10_000
        clean = losses.heard(sent, again)
    assert not clean
    for _ in range(20):
        sent, again = sent + 10_000, again + 100
        lossy = losses.heard(sent, again)
    assert lossy


def test_a_connection_that_ends_takes_nothing_back():
    losses = Losses()
    assert not losses.heard(10_000, 0)
    assert not losses.heard(2_000, 0)
    assert losses.heard(4_000, 100)
