from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.records import GaugeSample, SessionRecord, TurnRecord
from loadgen.report.lanes import MAX_LANES, MAX_SEGMENTS, Segment, lanes, turn_segments
from loadgen.report.series import MAX_GAUGE_POINTS, gauge_series, sessions_in_progress, throughput

moments = st.floats(min_value=0.001, max_value=1e5)


def turn(session: str = "a", number: int = 1, sent_s: float = 0.0, **known: float | str | None) -> TurnRecord:
    record = TurnRecord(session, number, number > 1, due_s=sent_s, sent_s=sent_s)
    for name, value in known.items():
        setattr(record, name, value)
    return record


@given(st.lists(moments, min_size=1, max_size=50))
def test_throughput_counts_every_answered_turn_once(ends: list[float]) -> None:
    points = throughput([turn(last_token_s=end_s) for end_s in ends], bins=10)
    width_s = max(ends) / 10
    assert sum(rate * width_s for _, rate in points[:-1]) == pytest.approx(len(ends))
    assert points[-1][0] == max(ends)


def test_throughput_of_failures_is_not_drawn() -> None:
    assert throughput([turn(last_token_s=3.0, error="reset"), turn()]) == []


def test_unknown_gauge_samples_are_left_out() -> None:
    samples = [GaugeSample(at_s=float(at_s), running=at_s if at_s % 2 else None) for at_s in range(6)]
    assert gauge_series(samples, lambda sample: sample.running) == [(1.0, 1.0), (3.0, 3.0), (5.0, 5.0)]
    assert gauge_series(samples, lambda sample: sample.waiting) == []


@given(st.integers(min_value=1, max_value=2000))
def test_a_long_gauge_is_thinned_to_means(count: int) -> None:
    samples = [GaugeSample(at_s=float(at_s), kv_used_ratio=0.5) for at_s in range(count)]
    points = gauge_series(samples, lambda sample: sample.kv_used_ratio)
    assert 0 < len(points) <= MAX_GAUGE_POINTS
    assert {value for _, value in points} == {0.5}


@given(st.lists(st.tuples(moments, moments), max_size=400))
def test_sessions_in_progress_end_at_none_and_are_never_negative(spans: list[tuple[float, float]]) -> None:
    sessions = [
        SessionRecord(str(index), arrival_s=start_s, end_s=start_s + length_s)
        for index, (start_s, length_s) in enumerate(spans)
    ]
    counts = [count for _, count in sessions_in_progress(sessions)]
    assert counts[-1:] == ([0.0] if spans else [])
    assert all(0 <= count <= len(spans) for count in counts)
    assert len(counts) <= MAX_GAUGE_POINTS + 1


def test_a_turn_and_its_gap_become_segments_in_order() -> None:
    whole = turn(
        sent_s=1.0,
        held_s=2.0,
        first_token_s=4.0,
        last_token_s=6.0,
        tool_start_s=6.0,
        tool_queue_s=0.5,
        tool_end_s=9.0,
    )
    assert turn_segments(whole) == [
        Segment("held", 1.0, 3.0),
        Segment("prefill", 3.0, 4.0),
        Segment("generate", 4.0, 6.0),
        Segment("queued", 6.0, 6.5),
        Segment("tool", 6.5, 9.0),
    ]


def test_what_is_not_known_is_not_drawn() -> None:
    assert turn_segments(turn()) == []
    assert turn_segments(turn(first_token_s=1.0)) == []
    assert turn_segments(turn(last_token_s=2.0)) == [Segment("generate", 0.0, 2.0)]
    assert turn_segments(turn(tool_start_s=2.0)) == []


@given(moments, moments, moments, moments)
def test_segments_follow_each_other_whatever_the_clocks_said(
    held_s: float, first_s: float, last_s: float, queue_s: float
) -> None:
    odd = turn(held_s=held_s, first_token_s=first_s, last_token_s=last_s, tool_queue_s=queue_s)
    odd.tool_start_s, odd.tool_end_s = last_s, last_s + 1
    segments = turn_segments(odd)
    assert all(one.start_s < one.end_s for one in segments)
    assert all(a.end_s <= b.start_s for a, b in pairwise(segments))


def test_lanes_come_in_order_of_arrival_and_end_where_the_session_does() -> None:
    late = SessionRecord("late", arrival_s=5.0, end_s=9.0)
    failed = SessionRecord("failed", arrival_s=1.0, error="reset")
    found = lanes([late, failed], [turn("failed", 2, 4.0), turn("failed", 1, 1.0, last_token_s=3.0)])
    assert [(lane.session.session, lane.ended_s) for lane in found] == [("failed", 4.0), ("late", 9.0)]
    assert found[0].seconds("generate") == 2.0


def test_a_large_run_is_spread_over_a_bounded_number_of_lanes() -> None:
    sessions = [SessionRecord(f"{index:05d}", arrival_s=float(index)) for index in range(5000)]
    few_turns = lanes(sessions, [])
    assert len(few_turns) == MAX_LANES
    assert few_turns[-1].session.arrival_s > 4900
    turns = [turn(session.session, number) for session in sessions[:1000] for number in range(100)]
    many = lanes(sessions[:1000], turns)
    assert 1 <= len(many) * 100 <= MAX_SEGMENTS
