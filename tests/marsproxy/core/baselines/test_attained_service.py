"""The process table by hand."""

import pytest

from marsproxy.core.baselines.attained_service import Call, Program, Service, level_of


@pytest.mark.parametrize(
    ("tokens", "level"), [(0, 0), (2_047, 0), (2_048, 1), (8_191, 1), (8_192, 2), (32_768, 3), (10**9, 3)]
)
def test_a_level_begins_at_its_lower_bound(tokens: int, level: int):
    assert level_of(tokens) == level


def test_calls_one_after_another_add_up():
    program = Program()
    for _ in range(3):
        program.call_completed(program.attained, Service(1_000, 2.0, 0.5))
    assert program.attained == Service(3_000, 6.0, 1.5)


def test_of_parallel_calls_the_longest_counts():
    program = Program(Service(1_000, 1.0, 0.0))
    before = program.attained
    program.call_completed(before, Service(5_000, 2.0, 9.0))
    program.call_completed(before, Service(3_000, 4.0, 1.0))
    assert program.attained == Service(6_000, 5.0, 9.0)


def test_a_call_starts_in_the_queue_of_its_program_and_moves_down_as_it_is_served():
    call = Call.of(Program(Service(1_500, 10.0)), 500, now=0.0)
    assert call.level == 0
    assert not call.try_demote(547)
    assert call.try_demote(548)
    assert call.level == 1
    assert not call.try_demote(548), "told twice, served once"
    assert not call.try_demote(100), "and nothing is taken back"
    assert call.try_demote(40_000)
    assert call.level == 3


def test_a_call_starves_when_waiting_is_twice_the_service():
    """20 s served and 10 s waited: the ratio is 2 after 30 s more."""
    call = Call.of(Program(Service(10_000, 20.0, 10.0)), 500, now=100.0)
    assert (call.level, call.starves_s) == (2, 130.0)


def test_a_promoted_call_has_a_whole_quantum_before_it():
    call = Call.of(Program(Service(10_000, 20.0, 10.0)), 500, now=100.0)
    call.promote()
    assert call.level == 0
    assert not call.try_demote(2_047)
    assert call.try_demote(2_048)


def test_a_call_of_a_program_that_starves_already_starts_in_the_first_queue():
    call = Call.of(Program(Service(10_000, 20.0, 40.0)), 500, now=100.0)
    assert (call.level, call.queue_tokens) == (0, 0)
