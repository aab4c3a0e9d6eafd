from __future__ import annotations

import pytest

from tests.bench.metrics import Section
from tests.bench.verdict import Machine, judge

QUIET = Machine(processors=2, busy_before=0.01, stolen=0.0)
OLD, NEW = {"wireguard-go": "0.0.20220316"}, {"wireguard-go": "0.0.20250522"}


def fast(**rates: float | None) -> dict[str, Section]:
    section = Section("fast", "")
    for contender, rate in rates.items():
        section.readings[contender.replace("_", "-")] = {"tcp1_up": [rate] * 3, "tcp1_down": [20.0] * 3}
    return {"fast": section}


def test_a_run_as_usual_on_a_quiet_machine_is_valid() -> None:
    assert judge(fast(none=19.0, wireguard_go=1.3), NEW, QUIET).valid


@pytest.mark.parametrize(("none", "peer"), [(7.9, 1.3), (19.0, 0.79), (None, 1.3)])
def test_one_contender_far_below_its_usual_rate_makes_the_run_invalid(none: float | None, peer: float) -> None:
    validity = judge(fast(none=none, wireguard_go=peer), NEW, QUIET)
    assert not validity.valid
    assert len(validity.reasons) == 1


def test_an_old_wireguard_go_is_judged_by_what_it_could_do() -> None:
    assert judge(fast(wireguard_go=0.25), OLD, QUIET).valid
    assert not judge(fast(wireguard_go=0.25), NEW, QUIET).valid
    assert not judge(fast(wireguard_go=0.1), OLD, QUIET).valid


def test_our_own_slowness_never_makes_a_run_invalid() -> None:
    assert judge(fast(none=19.0, stream=0.001), {}, QUIET).valid


@pytest.mark.parametrize(
    ("machine", "word"),
    [(Machine(2, 0.5, 0.0), "busy"), (Machine(2, 0.0, 0.2), "hypervisor"), (Machine(1, 0.0, 0.0), "processor")],
)
def test_a_machine_with_other_things_to_do_makes_the_run_invalid(machine: Machine, word: str) -> None:
    (reason,) = judge(fast(none=19.0), {}, machine).reasons
    assert word in reason


def test_a_run_without_anything_to_judge_by_is_not_valid_and_not_wrong() -> None:
    validity = judge({}, {}, QUIET)
    assert not validity.valid
    assert validity.reasons == ()
