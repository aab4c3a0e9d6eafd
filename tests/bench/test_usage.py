from __future__ import annotations

from tests.bench import usage


def test_the_machines_time_is_read_in_seconds() -> None:
    before = usage.parse_machine("cpu  100 10 50 800 40 5 35 10 0 0", 100)
    assert before == usage.Machine(busy=2.1, idle=8.4, steal=0.1, softirq=0.35)
    after = usage.parse_machine("cpu  200 10 50 900 40 5 35 10 0 0", 100)
    assert after.since(before).share_busy == 0.5


def test_a_process_may_have_brackets_in_its_name() -> None:
    assert usage.parse_process("12 (a) b (c)) S 1 12 12 0 -1 4194304 1 0 0 0 250 50 0 0 20 0", 100) == (2.5, 0.5)


def test_memory_is_read_in_mib() -> None:
    assert usage.parse_memory("Name:\tgtun\nVmRSS:\t   2048 kB\n", "VmRSS") == 2.0
    assert usage.parse_memory("", "VmRSS") == 0.0


def test_this_process_takes_memory_and_time() -> None:
    assert usage.machine().busy > 0
