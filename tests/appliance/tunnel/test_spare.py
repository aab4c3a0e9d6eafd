from hypothesis import given
from hypothesis import strategies as st

from appliance.tunnel import spare


@given(st.binary(min_size=1, max_size=5000), st.integers(1, 700), st.data())
def test_one_part_of_each_sum_is_worked_out_again(content, size, data):
    spares = spare.make(memoryview(content), size)
    parts = -(-len(content) // size)
    lost = {data.draw(st.sampled_from(range(which, parts, len(spares)))) for which in range(len(spares))}
    there, seen = memoryview(bytearray(content)), 0
    for number in range(parts):
        if number in lost:
            gap = there[number * size : (number + 1) * size]
            gap[:] = bytes(len(gap))
        else:
            seen |= 1 << number
    assert spare.mend(there, size, seen, {which: int.from_bytes(part, "little") for which, part in enumerate(spares)})
    assert bytes(there) == content


def test_without_its_spare_part_a_gap_stays():
    there = memoryview(bytearray(2000))
    assert not spare.mend(there, 100, ~(1 << 3), {})
    assert spare.mend(there, 100, ~0, {})


def test_neighbours_that_are_lost_together_are_in_different_sums():
    content = bytes(range(250)) * 8
    sums = {which: int.from_bytes(part, "little") for which, part in enumerate(spare.make(memoryview(content), 100))}
    there = memoryview(bytearray(content))
    there[300:600] = bytes(300)
    assert spare.mend(there, 100, ~(0b111 << 3), sums)
    assert bytes(there) == content
