"""Where a request with an explicit session id belongs: levels 1 to 3.

The id settles the session; what is left to find out is the kind of turn. One id may cover several lines
of history at a time (a title call, sub-agents that inherit the id), so lines are told apart like this,
the first that applies:

1. The latest request of a line again, same messages and tools alike: RETRY. An id makes this safe
   without a word from the client; concurrent samples of one request under one id share a turn.
2. It extends a line that is in its gap: CONTINUATION.
3. It extends the latest side call: that was no side call but the line, CONTINUATION.
4. It has tools, and all that the session had so far was one call without: that was a title, asked for in
   parallel with the main turn and here a moment before it (opencode). This is the FIRST turn.
5. No tools: SIDE if the session has them, or is busy, or starts otherwise; else CONDENSED. Raw completions
   have no messages to compare and no tools: CONTINUATION unless the session is busy.
6. Tools, and it carries the latest answer of a line in its gap, or rewinds one: CONDENSED.
7. Tools, and the main line is idle: CONDENSED if it starts with the same message, or if no tool results
   are due. If they are, an agent with another system prompt is a sub-agent at work: a branch.
8. The line is busy: a branch. A branch is a session of its own with the main line as parent.
"""

from marsproxy.core.evidence import Level, Schema, TurnEvidence, TurnKind
from marsproxy.core.frontiers import Fit, Session, State
from marsproxy.core.history import History
from marsproxy.core.placement import Placement, branched, condensed, continued, repeated


def place_named(evidence: TurnEvidence, history: History, lines: list[Session]) -> Placement:
    """Rules 1 to 4; ``lines`` are the live sessions under the id, the main one first."""
    level = evidence.explicit_level or Level.BODY
    main = lines[0]
    for line in lines:
        for frontier in line.frontiers:
            is_same = frontier.request_key == history.request_key and frontier.has_tools == evidence.has_tools
            if is_same and frontier.state is not State.CLOSED:
                return repeated(frontier, level)
    line, fit = _best_fit(evidence, history, lines)
    if fit is not None and fit.frontier.is_open:
        return continued(line, level, fit.matched)
    for line_with_side in lines:
        if _extends_side(line_with_side, history):
            return continued(line_with_side, level, 0)
    if evidence.has_tools and not main.has_tools and main.turn == 1:
        return Placement(TurnKind.FIRST, level, main)
    if evidence.has_tools:
        return _rewritten(evidence, history, level, lines, line, fit)
    return _without_tools(evidence, history, level, main, fit)


def _best_fit(evidence: TurnEvidence, history: History, lines: list[Session]) -> tuple[Session, Fit | None]:
    """The line that this extends, with where; the main line and None if it extends none."""
    if evidence.previous_response_id is not None:
        for line in lines:
            for frontier in line.frontiers:
                if evidence.previous_response_id in frontier.response_ids:
                    return line, Fit(frontier, 0)
    fits = [(line, fit) for line in lines if (fit := line.fit(history)) is not None]
    return max(
        fits, key=lambda found: (found[1].matched, found[1].frontier.is_open), default=(lines[0], None)
    )


def _extends_side(line: Session, history: History) -> bool:
    if line.side is None:
        return False
    length, key = line.side
    return length < len(history) and history.keys[length] == key


def _without_tools(
    evidence: TurnEvidence, history: History, level: Level, main: Session, fit: Fit | None
) -> Placement:
    """Rule 5."""
    matched = fit.matched if fit is not None else 0
    if not main.has_tools and not main.is_busy:
        if evidence.schema is Schema.COMPLETIONS:
            return continued(main, level, matched)
        if history.lead[0] == main.lead[0]:
            return condensed(main, level, matched)
    return Placement(TurnKind.SIDE, level, main, matched)


def _rewritten(
    evidence: TurnEvidence,
    history: History,
    level: Level,
    lines: list[Session],
    line: Session,
    fit: Fit | None,
) -> Placement:
    """Rules 6 to 8; ``line`` is the one that ``fit`` is of."""
    main = lines[0]
    matched = fit.matched if fit is not None else 0
    for candidate in lines:
        if _carries_latest_answer(candidate, evidence):
            return condensed(candidate, level, matched if candidate is line else 0)
    if fit is not None:
        return branched(main, level, matched) if line.is_busy else condensed(line, level, matched)
    if not main.is_busy and (history.lead[0] == main.lead[0] or not main.awaits_tools):
        return condensed(main, level, 0)
    return branched(main, level, 0)


def _carries_latest_answer(line: Session, evidence: TurnEvidence) -> bool:
    waiting = [f for f in line.frontiers if f.state is State.WAITING]
    return any(
        not set(evidence.echoed_call_ids).isdisjoint(f.call_ids)
        or not set(evidence.message_digests).isdisjoint(f.answers)
        for f in waiting
    )
