from appliance.tunnel.gate import PLACES, PLACES_PER_SOURCE, Gate


def test_one_source_gets_only_its_share_and_others_still_come_in():
    gate = Gate()
    assert [gate.enter("a") for _ in range(PLACES_PER_SOURCE + 3)].count(False) == 3
    assert gate.enter("b")
    assert gate.turned_away == 3


def test_there_are_only_so_many_places_in_all():
    gate = Gate()
    assert sum(gate.enter(str(number)) for number in range(PLACES + 50)) == PLACES


def test_a_place_that_was_left_is_free_again():
    gate = Gate()
    for _ in range(10 * PLACES):
        assert gate.enter("a")
        gate.leave("a")
