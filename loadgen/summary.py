"""Stand-in for the summary, until the full one is merged."""

from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.records import SessionRecord, TurnRecord


def mean(values: list[float]) -> dict[str, float | None]:
    return {"mean": sum(values) / len(values) if values else None}


def summarise(
    turns: Sequence[TurnRecord], sessions: Sequence[SessionRecord], meta: Mapping[str, Any]
) -> dict[str, Any]:
    answered = [turn for turn in turns if turn.error is None and turn.last_token_s is not None]
    return {
        **meta,
        "sessions": len(sessions),
        "completed": sum(session.is_completed for session in sessions),
        "failed": sum(session.error is not None for session in sessions),
        "turns": len(answered),
        "jct_s": mean([s.jct_s for s in sessions if s.is_completed and s.jct_s is not None]),
        "ttft_s": mean([turn.ttft_s for turn in answered if turn.ttft_s is not None]),
        "loop_lag_s": mean([turn.loop_lag_s for turn in turns]),
    }
