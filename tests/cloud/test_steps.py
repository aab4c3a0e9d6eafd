"""One look at a table leads to one step; an entry that is not marked ours is never the object of one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.answers import Mark, entry
from cloud.provider import Duplicate, EntryStatus, Owner, Rejected, RouteEntry
from cloud.retry import Pace
from cloud.steps import Goal, Step, to_adopt, to_have, to_lack, to_replace

OURS = RouteEntry(IPv4Network("10.244.0.0/16"), "i-me", "Instance", "vtb-1", "rte-1", Owner.OURS, EntryStatus.AVAILABLE)
entries = st.lists(
    st.builds(
        lambda hop, owner, status: replace(OURS, next_hop=hop, owner=owner, status=status),
        st.sampled_from(["i-me", "i-other", ""]),
        st.sampled_from(Owner),
        st.sampled_from(EntryStatus),
    ),
    max_size=1,
)


@given(entries)
def test_only_our_own_available_entry_or_one_that_is_taken_over_is_ever_written(found: list[RouteEntry]) -> None:
    available = bool(found) and found[0].status is EntryStatus.AVAILABLE
    ours = available and found[0].owner is Owner.OURS
    try:
        step = to_have(found, "i-me")
    except (Duplicate, Rejected):
        assert found[0].owner not in {Owner.OURS, Owner.EARLIER}
    else:
        assert step is not Step.DELETE
        assert step is not Step.MODIFY or ours or (available and found[0].owner is Owner.EARLIER)
        assert step is not Step.CREATE or not found
        assert (step is Step.DONE) == (ours and found[0].next_hop == "i-me")
    away = to_lack(found, "i-me")
    assert away in {Step.DONE, Step.WAIT, Step.DELETE}
    assert away is not Step.DELETE or ours
    assert (away is Step.DONE) == (not found or found[0].owner is not Owner.OURS)


def test_somebody_elses_entry_is_named_in_the_error() -> None:
    with pytest.raises(Duplicate, match=r"10\.244\.0\.0/16 .* vtb-1 .* rte-1 to i-other"):
        to_have([replace(OURS, owner=Owner.FOREIGN, next_hop="i-other")], "i-me")


@pytest.mark.parametrize(
    ("name", "description", "owner"),
    [
        ("nexthop-i-1", "nexthop:i-1:1", Owner.EARLIER),
        ("nexthop-i-1", "nexthop:i-1:1:i-hop", Owner.EARLIER),
        ("nexthop-i-1", "nexthop:i-1:1:i-other", Owner.CHANGED),
        ("nexthop-i-1", "nexthop:i-1:2:i-me", Owner.CHANGED),
        ("nexthop-i-1", "nexthop:i-1:2", Owner.FOREIGN),
        ("nexthop-i-1", "nexthop:i-1:2:i-hop", Owner.FOREIGN),
        ("nexthop-i-1", "nexthop:i-1:3:i-hop", Owner.FOREIGN),
        ("nexthop-i-1", "nexthop:i-1:one:i-hop", Owner.FOREIGN),
        ("renamed by a person", "nexthop:i-1:1", Owner.FOREIGN),
        ("nexthop-i-1", "", Owner.FOREIGN),
        ("nexthop-i-10", "nexthop:i-10:1", Owner.FOREIGN),
        ("nexthop-i-1", "nexthop:i-10:1", Owner.FOREIGN),
        ("", "", Owner.FOREIGN),
    ],
)
def test_an_entry_that_leads_to_another_machine_is_never_ours_and_at_most_to_be_taken_over(
    name: str, description: str, owner: Owner
) -> None:
    item = {
        "DestinationCidrBlock": "10.0.0.0/8",
        "Type": "Custom",
        "RouteEntryName": name,
        "Description": description,
        "NextHops": {"NextHop": [{"NextHopId": "i-hop"}]},
    }
    read = entry(item, "vtb-1", Mark("i-1", epoch=2, hop="i-me"))
    assert read is not None
    assert read.owner is owner


@pytest.mark.parametrize(
    ("description", "owner"),
    [
        ("nexthop:i-1:1", Owner.OURS),
        ("nexthop:i-1:1:i-other", Owner.OURS),
        ("nexthop:i-1:2:i-me", Owner.OURS),
        ("nexthop:i-1:3:i-me", Owner.FOREIGN),
        ("nexthop:i-10:1:i-me", Owner.FOREIGN),
    ],
)
def test_an_entry_that_leads_here_is_ours_by_both_marks(description: str, owner: Owner) -> None:
    assert Mark("i-1", epoch=2, hop="i-me").owner("nexthop-i-1", description, "i-me") is owner


@given(entries, st.sampled_from([to_have, to_adopt, to_replace]))
def test_every_goal_is_reached_only_by_our_own_entry(found: list[RouteEntry], goal: Goal) -> None:
    try:
        step = goal(found, "i-me")
    except (Duplicate, Rejected):
        return
    if step is Step.DONE and found:
        assert (found[0].owner, found[0].next_hop) == (Owner.OURS, "i-me")
    assert step in {Step.DONE, Step.WAIT, Step.CREATE} or found[0].status is EntryStatus.AVAILABLE


def test_a_destination_that_is_no_cidr_is_passed_over() -> None:
    assert entry({"DestinationCidrBlock": "pl-abc", "Type": "Custom"}, "vtb-1", Mark("i-1")) is None


def test_our_marks_are_texts_that_the_cloud_takes() -> None:
    mark = Mark("i-" + "x" * 60)
    assert len(mark.name) <= 128
    assert len(mark.description) <= 256
    assert not mark.description.startswith(("http://", "https://"))


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_waits_grow_to_a_limit_and_keep_at_least_half_of_it(failures: int, chance: float) -> None:
    pace = Pace(first=1.0, longest=16.0)
    whole = min(16.0, 2.0 ** min(failures - 1, 10))
    assert whole / 2 <= pace.wait(failures, chance) <= whole


def test_looks_at_an_entry_that_settles_come_soon_at_first_and_then_seldom() -> None:
    pauses = [Pace(poll=0.3).look(n) for n in range(1, 40)]
    assert pauses[0] == 0.3
    assert pauses == sorted(pauses)
    assert pauses[-1] == 3.0
