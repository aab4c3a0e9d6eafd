from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model import Phase
from appliance.reconcile import (
    AttractStep,
    Entry,
    ForwardStep,
    Installed,
    Plan,
    Retry,
    Withhold,
    attract_step,
    forward_step,
    plan,
)


@given(st.lists(st.integers(0, 20)), st.frozensets(st.integers(0, 20)))
def test_carrying_out_a_plan_gives_what_is_wanted_and_then_there_is_nothing_to_do(
    want: list[int], have: frozenset[int]
) -> None:
    todo = plan(want, have)
    result = (have | set(todo.add)) - set(todo.remove)
    assert result == set(want)
    assert not plan(want, result)
    assert len(todo.add) == len(set(todo.add))


def test_things_are_added_in_the_order_in_which_they_are_wanted() -> None:
    assert plan([3, 1, 2, 1], [2, 9]) == Plan(add=(3, 1), remove=(9,))
    assert plan([3, 1], [])
    assert not plan([], [])


def test_waits_longer_after_each_failure_up_to_the_cap_and_starts_over_after_a_success() -> None:
    retry = Retry(1.0, 5.0, lambda: 1.0)
    assert retry.wait(100.0) == 0
    waits = []
    for _ in range(5):
        retry.failed(100.0)
        waits.append(retry.wait(100.0))
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert retry.failures == 5
    assert retry.wait(103.0) == 2.0
    assert retry.wait(106.0) == 0.0
    retry.succeeded()
    retry.failed(200.0)
    assert retry.wait(200.0) == 1.0


@pytest.mark.parametrize("random", [0.0, 0.3, 0.999])
def test_the_wait_is_spread_over_the_upper_half(random: float) -> None:
    retry = Retry(1.0, 5.0, lambda: random)
    for _ in range(10_000):  # long outages overflow nothing
        retry.failed(0.0)
    assert 2.5 <= retry.wait(0.0) <= 5.0


def test_forward_carries_what_is_present_or_leaving_and_forgets_what_is_gone() -> None:
    for phase in (Phase.PRESENT, Phase.LEAVING):
        steps = [forward_step(phase, each) for each in (Installed.NONE, Installed.PART, Installed.WHOLE)]
        assert steps == [ForwardStep.ADD, ForwardStep.ADD, ForwardStep.KEEP]
    gone: list[tuple[Phase | None, ForwardStep]] = [(Phase.WITHDRAWN, ForwardStep.DROP), (None, ForwardStep.NOTHING)]
    for over, last in gone:
        steps = [forward_step(over, each) for each in (Installed.NONE, Installed.PART, Installed.WHOLE)]
        assert steps == [last, ForwardStep.REMOVE, ForwardStep.REMOVE]


def test_attract_never_acts_on_a_foreign_entry() -> None:
    acts = {AttractStep.ENSURE, AttractStep.WITHDRAW}
    for phase in (*Phase, None):
        for carried in (True, False):
            assert attract_step(phase, Entry.FOREIGN, carried=carried, released=True) not in acts
        assert attract_step(phase, Entry.MIXED, carried=True) is not AttractStep.ENSURE


def test_attract_withdraws_what_is_ours_unless_nobody_ever_asked_for_it() -> None:
    for entry in (Entry.READY, Entry.UNSETTLED, Entry.MIXED):
        assert attract_step(Phase.LEAVING, entry, carried=True) is AttractStep.WITHDRAW
        assert attract_step(Phase.WITHDRAWN, entry, carried=True) is AttractStep.WITHDRAW
        assert attract_step(None, entry, carried=False, released=True) is AttractStep.WITHDRAW
        assert attract_step(None, entry, carried=False) is AttractStep.STRAY


def test_a_withheld_cidr_gets_no_entry_and_loses_it_only_after_the_hold_down() -> None:
    def step(entry: Entry, withhold: Withhold) -> AttractStep:
        return attract_step(Phase.PRESENT, entry, carried=True, withhold=withhold)

    assert step(Entry.READY, Withhold.NEW) is AttractStep.REST
    assert step(Entry.ABSENT, Withhold.NEW) is AttractStep.WITHHELD
    assert step(Entry.READY, Withhold.ANY) is AttractStep.WITHDRAW
    assert step(Entry.UNSETTLED, Withhold.ANY) is AttractStep.WITHDRAW
    assert step(Entry.ABSENT, Withhold.ANY) is AttractStep.WITHHELD
    assert step(Entry.FOREIGN, Withhold.ANY) is AttractStep.BLOCKED
    leaving = attract_step(Phase.LEAVING, Entry.ABSENT, carried=True, withhold=Withhold.ANY)
    assert leaving is AttractStep.MARK_WITHDRAWN
