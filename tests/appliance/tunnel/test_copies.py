import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel.copies import Losses, Order, Packet, Tickets

SMALL = 1500


def ticket(tickets: Tickets, flow: int = 1, now: float = 0.0, *, beside: bool = False) -> tuple[int, int] | None:
    return tickets.draw(flow, SMALL, now, beside=beside)[0]


def packet(number: int) -> Packet:
    return 0, 0, memoryview(number.to_bytes(4))


def numbers(turn: Sequence[Packet] | None) -> list[int]:
    return [int.from_bytes(content) for _, _, content in turn or ()]


@given(st.integers(1, 5), st.integers(1, 80), st.randoms(use_true_random=False))
def test_over_any_interleaving_of_ordered_ways_each_packet_counts_once_and_in_order(ways, packets, chance):
    tickets, order = Tickets(), Order()
    sent = [ticket(tickets) or (0, 0) for _ in range(packets)]
    lines, got = [list(sent) for _ in range(ways)], []
    while lines:
        line = chance.choice(lines)
        tag, number = line.pop(0)
        got += numbers(order.take((tag, number), packet(number), ordered=True))
        lines = [line for line in lines if line]
    assert got == [number for _, number in sent]


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.randoms(use_true_random=False))
def test_what_datagrams_bring_in_any_order_with_gaps_comes_out_in_order_with_none(packets, lost, ahead, chance):
    order, got = Order(), []
    line = list(range(1, packets + 1))
    datagrams = [number for number in line for _ in range(2) if chance.random() >= lost]
    chance.shuffle(datagrams)
    while line or datagrams:
        ordered = bool(line) and (not datagrams or chance.random() >= ahead)
        number = line.pop(0) if ordered else datagrams.pop()
        got += numbers(order.take((7, number), packet(number), ordered=ordered))
    assert got == list(range(1, packets + 1))


def test_what_a_connection_left_out_holds_up_nothing():
    order = Order()
    assert numbers(order.take((7, 1), packet(1), ordered=True)) == [1]
    for number in (3, 5, 6):
        assert order.take((7, number), packet(number), ordered=False) == ()
    assert numbers(order.take((7, 5), packet(5), ordered=True)) == [3, 5, 6]


def test_what_waits_for_what_is_missing_is_bounded_and_the_longest_silent_flow_gives_way():
    order, large = Order(), (0, 0, memoryview(bytes(64 << 10)))
    for tag in range(3000):
        assert order.take((tag, 2), large, ordered=False) == ()
    kept = [len(order.take((tag, 1), packet(1), ordered=True) or ()) - 1 for tag in reversed(range(2000, 3000))]
    assert kept == [1] * 63 + [0] * 937


def test_one_flow_with_a_gap_keeps_no_more_than_that():
    order, large = Order(), (0, 0, memoryview(bytes(64 << 10)))
    for number in range(2, 200):
        order.take((7, number), large, ordered=False)
    assert 0 < len(order.take((7, 1), packet(1), ordered=True) or ()) <= 65


def test_packets_that_are_empty_are_kept_in_bounded_number():
    order = Order()
    for number in range(2, 100_000):
        order.take((7, number), (0, 0, memoryview(b"")), ordered=False)
    assert len(order.take((7, 1), packet(1), ordered=True) or ()) < 10_000


def test_a_flow_is_young_for_a_while_and_again_after_a_pause():
    tickets = Tickets()
    grown(tickets, 1)
    assert ticket(tickets, now=1.0) is None
    assert ticket(tickets, now=4.0) is not None


def test_beside_datagrams_a_flow_is_young_for_longer_and_soon_goes_one_way():
    tickets, everywhere = Tickets(), []
    while (drawn := tickets.draw(1, SMALL, 0.0, beside=True))[0] is not None:
        everywhere.append(drawn[1])
    assert len(everywhere) * SMALL > 3 << 20
    assert everywhere == sorted(everywhere, reverse=True)
    assert 100 << 10 < sum(everywhere) * SMALL < 1 << 20


def test_a_flow_that_went_one_way_never_goes_all_ways_again():
    """What it left out on the others would be missing there."""
    tickets = Tickets()
    while tickets.draw(1, SMALL, 0.0, beside=True)[1]:
        pass
    tickets.way(1, {"a": 0}, lambda _way: 1.0, 0.0)
    assert tickets.draw(1, SMALL, 0.1, beside=False)[1] is False
    grown(tickets, 1)
    assert ticket(tickets, now=0.2, beside=True) is None


def test_a_flow_that_is_young_again_is_not_taken_for_what_came_before():
    tickets, order = Tickets(), Order()
    for now in (0.0, 0.1, 9.0, 9.1):
        assert order.take(ticket(tickets, now=now) or (0, 0), packet(1), ordered=True)


def test_flows_have_tickets_of_their_own():
    tickets, order = Tickets(), Order()
    for flow in (1, 2, 1, 2):
        assert order.take(ticket(tickets, flow) or (0, 0), packet(1), ordered=False)


def grown(tickets: Tickets, flow: int) -> None:
    while ticket(tickets, flow) is not None:
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
    tickets, order = Tickets(), Order()
    for flow in random.Random(1).choices(range(1 << 20), k=5000):
        drawn = ticket(tickets, flow)
        assert drawn is None or order.take(drawn, packet(1), ordered=True)
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
