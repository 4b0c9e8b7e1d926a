"""Reduces the records of one run to the figures of ``summary.json``.

Only what completed is measured: a failed or unfinished turn or session is counted as such and gives no
time, so a target cannot look faster by failing. A figure that the records do not support is None.
Percentiles are measured values (``loadgen.percentiles``). Knows nothing of files, drivers or servers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadgen.percentiles import Distribution, distribution
from loadgen.records import SessionRecord, TurnRecord

GOODPUT_ALPHA = 3.0
"""A session is served well if it took at most this many times its time on an idle server."""

META_KEYS = ("policy", "workload", "seed", "hardware", "commit", "preemptions")
"""What only the driver knows; always present in a summary, None if it did not say."""


def summarise(
    turns: Sequence[TurnRecord], sessions: Sequence[SessionRecord], meta: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of ``summary.json``: measured figures, and ``meta`` as the driver gave it.

    ``meta`` may hold any settings worth keeping (``label``, ``target``, ``rate``, ``concurrency``,
    ``tools``, ``flags``...) but cannot override a measured figure.
    """
    measured = {
        **_counts(turns, sessions),
        **_rates(turns, sessions),
        **_times(turns, sessions),
        **_hit_ratios(turns),
        "goodput_alpha3": goodput(sessions),
    }
    if clash := sorted(measured.keys() & meta.keys()):
        raise ValueError(f"meta sets {', '.join(clash)}, which the records decide")
    return {**dict.fromkeys(META_KEYS), **meta, **measured}


def is_answered(turn: TurnRecord) -> bool:
    """Whether the turn got its whole answer."""
    return turn.error is None and turn.last_token_s is not None


def goodput(sessions: Sequence[SessionRecord], alpha: float = GOODPUT_ALPHA) -> float | None:
    """Share of the sessions with a known ideal that completed within ``alpha`` times it."""
    judged = [session for session in sessions if session.ideal_s is not None]
    if not judged:
        return None
    return sum(_is_within(session, alpha) for session in judged) / len(judged)


def _is_within(session: SessionRecord, alpha: float) -> bool:
    if not session.is_completed or session.jct_s is None or session.ideal_s is None:
        return False
    return session.jct_s <= alpha * session.ideal_s


def _counts(turns: Sequence[TurnRecord], sessions: Sequence[SessionRecord]) -> dict[str, int]:
    completed = sum(session.is_completed for session in sessions)
    failed = sum(session.error is not None for session in sessions)
    answered = sum(map(is_answered, turns))
    turns_failed = sum(turn.error is not None for turn in turns)
    return {
        "sessions": len(sessions),
        "completed": completed,
        "failed": failed,
        "unfinished": len(sessions) - completed - failed,
        "turns": answered,
        "turns_failed": turns_failed,
        "turns_unfinished": len(turns) - answered - turns_failed,
        "retries": sum(turn.retries for turn in turns),
    }


def _rates(turns: Sequence[TurnRecord], sessions: Sequence[SessionRecord]) -> dict[str, float | None]:
    answered = [turn for turn in turns if is_answered(turn)]
    makespan_s = _makespan_s(answered, sessions)
    output_tokens = _sum_if_all_known([turn.output_tokens for turn in answered])
    return {
        "makespan_s": makespan_s,
        "throughput_turns_per_s": _per_second(len(answered), makespan_s),
        "throughput_tokens_per_s": _per_second(output_tokens, makespan_s),
    }


def _makespan_s(answered: Sequence[TurnRecord], sessions: Sequence[SessionRecord]) -> float | None:
    """From the first arrival to the last byte of an answer."""
    starts = [session.arrival_s for session in sessions] or [turn.due_s for turn in answered]
    ends = [turn.last_token_s for turn in answered if turn.last_token_s is not None]
    ends += [session.end_s for session in sessions if session.is_completed and session.end_s is not None]
    return max(ends) - min(starts) if starts and ends else None


def _sum_if_all_known(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _per_second(count: int | None, duration_s: float | None) -> float | None:
    return None if count is None or not duration_s or duration_s < 0 else count / duration_s


def _times(turns: Sequence[TurnRecord], sessions: Sequence[SessionRecord]) -> dict[str, Any]:
    answered = [turn for turn in turns if is_answered(turn)]
    measured: dict[str, Distribution] = {
        "jct_s": distribution(session.jct_s for session in sessions if session.is_completed),
        "ttft_s": distribution(turn.ttft_s for turn in answered),
        "ttft_new_s": distribution(turn.ttft_s for turn in answered if not turn.is_continuation),
        "ttft_continuation_s": distribution(turn.ttft_s for turn in answered if turn.is_continuation),
        "held_s": distribution(turn.held_s for turn in answered),
        "tool_queue_s": distribution(turn.tool_queue_s for turn in answered),
        # of every turn: a driver that was late for a failed turn was late all the same
        "loop_lag_s": distribution(turn.loop_lag_s for turn in turns),
    }
    return {name: msgspec.to_builtins(value) for name, value in measured.items()}


def _hit_ratios(turns: Sequence[TurnRecord]) -> dict[str, float | None]:
    answered = [turn for turn in turns if is_answered(turn)]
    return {
        "prefix_hit_ratio": _hit_ratio(answered),
        "continuation_hit_ratio": _hit_ratio([turn for turn in answered if turn.is_continuation]),
    }


def _hit_ratio(turns: Sequence[TurnRecord]) -> float | None:
    """Prompt tokens found in the KV cache over prompt tokens, of the turns where both are known."""
    known = [
        (turn.cached_tokens, turn.prompt_tokens)
        for turn in turns
        if turn.cached_tokens is not None and turn.prompt_tokens is not None
    ]
    prompt_tokens = sum(prompt for _, prompt in known)
    return sum(cached for cached, _ in known) / prompt_tokens if prompt_tokens else None
