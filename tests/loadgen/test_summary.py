import msgspec
import pytest

from loadgen.records import SessionRecord, TurnRecord
from loadgen.summary import META_KEYS, goodput, is_answered, summarise

REQUIRED = {
    "policy",
    "workload",
    "seed",
    "hardware",
    "sessions",
    "completed",
    "failed",
    "turns",
    "makespan_s",
    "jct_s",
    "ttft_s",
    "ttft_new_s",
    "ttft_continuation_s",
    "held_s",
    "throughput_turns_per_s",
    "throughput_tokens_per_s",
    "goodput_alpha3",
    "prefix_hit_ratio",
    "continuation_hit_ratio",
    "preemptions",
    "tool_queue_s",
    "commit",
}


def turn(
    session: str,
    number: int,
    sent_s: float,
    first_s: float | None,
    last_s: float | None,
    *,
    prompt: int | None = None,
    cached: int | None = None,
    output: int | None = None,
    held_s: float | None = None,
    tool_queue_s: float | None = None,
    error: str | None = None,
) -> TurnRecord:
    return TurnRecord(
        session=session,
        turn=number,
        is_continuation=number > 1,
        due_s=sent_s,
        sent_s=sent_s,
        first_token_s=first_s,
        last_token_s=last_s,
        prompt_tokens=prompt,
        cached_tokens=cached,
        output_tokens=output,
        held_s=held_s,
        tool_queue_s=tool_queue_s,
        error=error,
    )


def two_turns() -> list[TurnRecord]:
    return [
        turn("a", 1, 0.0, 2.0, 3.0, prompt=100, cached=0, output=10, held_s=1.5, tool_queue_s=0.25),
        turn("a", 2, 4.0, 4.5, 10.0, prompt=200, cached=150, output=30, held_s=0.0),
    ]


def test_a_summary_holds_every_promised_key_even_of_an_empty_run() -> None:
    empty = summarise([], [], {})
    assert empty.keys() >= REQUIRED
    assert (empty["sessions"], empty["completed"], empty["failed"], empty["turns"]) == (0, 0, 0, 0)
    assert empty["jct_s"] == {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None, "max": None}
    unknown = ("makespan_s", "throughput_turns_per_s", "throughput_tokens_per_s", "goodput_alpha3")
    assert [empty[key] for key in (*unknown, "prefix_hit_ratio", *META_KEYS)] == [None] * (5 + len(META_KEYS))
    assert msgspec.json.decode(msgspec.json.encode(empty)) == empty


def test_the_figures_of_a_small_run() -> None:
    session = SessionRecord("a", arrival_s=0.0, end_s=10.0, turns_planned=2, turns_completed=2)
    found = summarise(two_turns(), [session], {"seed": 7, "target": "http://somewhere"})
    assert (found["completed"], found["failed"], found["turns"]) == (1, 0, 2)
    assert found["jct_s"]["mean"] == 10.0
    assert found["ttft_s"]["mean"] == 1.25
    assert found["ttft_new_s"]["p99"] == 2.0
    assert found["ttft_continuation_s"]["p50"] == 0.5
    assert found["held_s"]["mean"] == 0.75
    assert found["tool_queue_s"]["count"] == 1
    assert found["makespan_s"] == 10.0
    assert found["throughput_turns_per_s"] == 0.2
    assert found["throughput_tokens_per_s"] == 4.0
    assert found["prefix_hit_ratio"] == 0.5
    assert found["continuation_hit_ratio"] == 0.75
    assert (found["seed"], found["target"], found["policy"]) == (7, "http://somewhere", None)


def test_a_failure_is_counted_and_gives_no_time() -> None:
    failed_turn = turn("b", 1, 0.0, 0.001, 0.002, prompt=9000, cached=9000, output=1, error="reset")
    sessions = [
        SessionRecord("a", arrival_s=0.0, end_s=10.0),
        SessionRecord("b", arrival_s=0.0, end_s=0.002, error="reset"),
    ]
    alone = summarise(two_turns(), sessions[:1], {})
    both = summarise([*two_turns(), failed_turn], sessions, {})
    assert (both["completed"], both["failed"], both["turns"], both["turns_failed"]) == (1, 1, 2, 1)
    for key in ("jct_s", "ttft_s", "throughput_turns_per_s", "throughput_tokens_per_s", "prefix_hit_ratio"):
        assert both[key] == alone[key], key


def test_what_a_stopped_run_left_open_is_neither_completed_nor_failed() -> None:
    open_turn = turn("a", 1, 0.0, 1.0, None)
    found = summarise([open_turn], [SessionRecord("a", arrival_s=0.0)], {})
    assert (found["completed"], found["failed"], found["unfinished"]) == (0, 0, 1)
    assert (found["turns"], found["turns_failed"], found["turns_unfinished"]) == (0, 0, 1)
    assert not is_answered(open_turn)
    assert found["makespan_s"] is None


def test_an_unknown_token_count_makes_the_token_rate_unknown_and_leaves_the_hit_ratio_to_the_others() -> None:
    silent = turn("a", 3, 11.0, 12.0, 13.0)
    found = summarise([*two_turns(), silent], [SessionRecord("a", arrival_s=0.0, end_s=13.0)], {})
    assert found["throughput_tokens_per_s"] is None
    assert found["prefix_hit_ratio"] == 0.5


def test_goodput_judges_the_sessions_whose_ideal_is_known() -> None:
    within = SessionRecord("a", arrival_s=0.0, end_s=30.0, ideal_s=10.0)
    late = SessionRecord("b", arrival_s=0.0, end_s=30.1, ideal_s=10.0)
    failed = SessionRecord("c", arrival_s=0.0, end_s=1.0, ideal_s=10.0, error="reset")
    unknown = SessionRecord("d", arrival_s=0.0, end_s=1.0)
    assert goodput([within, late, failed, unknown]) == pytest.approx(1 / 3)
    assert goodput([unknown]) is None
    assert summarise([], [within, late], {})["goodput_alpha3"] == 0.5


def test_meta_cannot_override_what_was_measured() -> None:
    with pytest.raises(ValueError, match="completed, jct_s"):
        summarise([], [], {"jct_s": 1.0, "completed": 5, "seed": 1})


def test_preemptions_are_what_the_driver_counted() -> None:
    assert summarise([], [], {"preemptions": 3})["preemptions"] == 3
    assert summarise([], [], {})["preemptions"] is None
