"""What each session did when: the segments of one lane of the timeline.

A turn is held, waits for its first token, then generates; the gap after it waits for a tool slot, then
runs the tool. What is not known leaves its part of the lane empty.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadgen.records import SessionRecord, TurnRecord

STATES = ("held", "prefill", "generate", "queued", "tool")

MAX_LANES = 300
MAX_SEGMENTS = 12_000
"""Of one target: at about 55 bytes each, two thirds of a megabyte of SVG."""

MAX_SEGMENTS_IN_ALL = 36_000
"""Shared by the targets of a report, so that it stays a file one can mail."""


@dataclass(frozen=True, slots=True)
class Segment:
    state: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Lane:
    session: SessionRecord
    segments: list[Segment]
    ended_s: float
    """When the lane stops: end of the session, or of what is known of it."""

    def seconds(self, state: str) -> float:
        return sum(one.end_s - one.start_s for one in self.segments if one.state == state)


def lanes(
    sessions: Sequence[SessionRecord], turns: Iterable[TurnRecord], max_segments: int = MAX_SEGMENTS
) -> list[Lane]:
    """Lanes in order of arrival; of a large run, sessions spread evenly over the arrivals."""
    turns_of: defaultdict[str, list[TurnRecord]] = defaultdict(list)
    for turn in turns:
        turns_of[turn.session].append(turn)
    ordered = sorted(sessions, key=lambda session: (session.arrival_s, session.session))
    per_session = 1 + len(STATES) * sum(map(len, turns_of.values())) / max(len(ordered), 1)
    limit = max(1, min(MAX_LANES, int(max_segments / per_session)))
    return [_lane(session, turns_of[session.session]) for session in _spread(ordered, limit)]


def _spread(ordered: list[SessionRecord], limit: int) -> list[SessionRecord]:
    if len(ordered) <= limit:
        return ordered
    return [ordered[index * len(ordered) // limit] for index in range(limit)]


def _lane(session: SessionRecord, turns: list[TurnRecord]) -> Lane:
    segments = [one for turn in sorted(turns, key=lambda turn: turn.turn) for one in turn_segments(turn)]
    known_ends = [one.end_s for one in segments] + [turn.sent_s for turn in turns] + [session.arrival_s]
    return Lane(session, segments, session.end_s if session.end_s is not None else max(known_ends))


def turn_segments(turn: TurnRecord) -> list[Segment]:
    """The segments of a turn and the tool gap after it; empty ones are left out."""
    found = [*_answer_segments(turn), *_tool_segments(turn)]
    return [one for one in found if one.end_s > one.start_s]


def _answer_segments(turn: TurnRecord) -> list[Segment]:
    if turn.last_token_s is None:
        return []
    # proxy and driver read different clocks, so a hold may seem to outlast its answer
    end_s = max(turn.last_token_s, turn.sent_s)
    released_s = min(turn.sent_s + (turn.held_s or 0.0), end_s)
    first_token_s = released_s if turn.first_token_s is None else turn.first_token_s
    first_token_s = min(max(first_token_s, released_s), end_s)
    return [
        Segment("held", turn.sent_s, released_s),
        Segment("prefill", released_s, first_token_s),
        Segment("generate", first_token_s, end_s),
    ]


def _tool_segments(turn: TurnRecord) -> list[Segment]:
    if turn.tool_start_s is None or turn.tool_end_s is None:
        return []
    started_s = min(turn.tool_start_s + (turn.tool_queue_s or 0.0), turn.tool_end_s)
    return [
        Segment("queued", turn.tool_start_s, started_s),
        Segment("tool", started_s, turn.tool_end_s),
    ]
